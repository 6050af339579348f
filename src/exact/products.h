// Products of matrices, and sums of chosen rows. Vectors, tiles and threads share out elements, never
// an element's sum. The right factor and the start may be read 512 bytes beyond their ends.
#include "threads.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DONE, NO_MEMORY, NOT_BINARY, UNCHANGED };  // statuses

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

// A tile of a product is ROWS x (WIDE LANES) sums: as many as the processor's registers hold.
#if defined __AVX512F__
#include <immintrin.h>
enum { LANES = 16, ROWS = 8 };
#define VECTOR_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#elif defined __AVX2__ && defined __FMA__
#include <immintrin.h>
enum { LANES = 8, ROWS = 4 };
#define VECTOR_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#elif defined __aarch64__
#include <arm_neon.h>
enum { LANES = 4, ROWS = 8 };
#define VECTOR_FMA(a, b, c) vfmaq_f32(c, a, b)
#else
#error "a processor with fused multiply-add is needed: x86-64 with AVX2 and FMA, or 64-bit ARM"
#endif
enum { WIDE = 3, ACROSS = WIDE * LANES };
typedef float V __attribute__((vector_size(4 * LANES)));
typedef float U __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef float Half __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
#define LOAD(at) ((V)*(const U *)(at))

// Memory of the calling thread that lasts, and 512 bytes more; NULL: none is left.
enum { PANELS, GRADIENT, NEXT_GRADIENT, LISTS, PATCHES, KEPT, MEMORIES };
static void *scratch(int which, long bytes) {
    static _Thread_local struct { void *memory; long bytes; } kept[MEMORIES];
    if (bytes > kept[which].bytes || !kept[which].memory) {
        free(kept[which].memory);
        kept[which].memory = aligned_alloc(64, parts(bytes + 512, 64) * 64);
        kept[which].bytes = kept[which].memory ? bytes : 0;
    }
    return kept[which].memory;
}

INLINE void store(float *to, V x, long left) {  // of the lanes, only the `left` first
    if (left >= LANES) *(U *)to = x;
    else if (left > 0) memcpy(to, &x, left * sizeof(float));
}

// c(i, j) = start(i, j) + sum over k of a(i, k) b(k, j), each one chain of fused multiply-adds, k
// ascending. Then negatives become 0 (relu).
typedef struct {
    long rows, columns, depth;
    const float *a; long a_row, a_k;
    const float *b; long b_k, b_column;  // one of the two is 1
    float *c; const float *start;        // start NULL: 0
    int relu;
    long start_row;                      // 0: one start for all rows
    float *panels;                       // set below: b, ACROSS columns after ACROSS columns
} Product;

static int packed(const Product *p) {  // else b is read where it lies
    return p->b_column != 1 || p->b_k % 1024 == 0;  // so far apart, rows crowd each other out of caches
}

static void pack(void *of, long first, long last) {
    const Product *p = of;
    for (long j = first * ACROSS; j < last * ACROSS; j += ACROSS) {
        float *panel = p->panels + j * p->depth;
        const float *b = p->b + j * p->b_column;
        long columns = least(ACROSS, p->columns - j);
        for (long from = 0; from < p->depth; from += 16)  // 16 numbers fill a line of the cache
            for (long l = 0; l < columns; l++)
                for (long k = from; k < least(from + 16, p->depth); k++)
                    panel[k * ACROSS + l] = b[k * p->b_k + l * p->b_column];
    }
}

INLINE void tile(const Product *p, long i, long j, const int rows, const int wide) {
    const float *a = p->a + i * p->a_row, *b = p->b + j;
    long b_k = p->b_k;
    if (packed(p)) b = p->panels + j * p->depth, b_k = ACROSS;
    V sum[ROWS][WIDE];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < wide; v++)
        sum[r][v] = p->start ? LOAD(p->start + (i + r) * p->start_row + j + v * LANES) : (V){0};
    for (long k = 0; k < p->depth; k++, a += p->a_k, b += b_k) {
        V right[WIDE];
        UNROLL for (int v = 0; v < wide; v++) right[v] = LOAD(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            V left = a[r * p->a_row] - (V){0};
            UNROLL for (int v = 0; v < wide; v++) sum[r][v] = VECTOR_FMA(left, right[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < wide; v++) {
        long column = j + v * LANES, at = (i + r) * p->columns + column;
        V x = sum[r][v];
        if (p->relu) x = (V)((Mask)x & ~(x < 0));
        store(p->c + at, x, p->columns - column);
    }
}

static void tiles(void *of, long first, long last) {  // down the columns
    const Product *p = of;
    long high = p->rows < ROWS ? 1 : ROWS, down = parts(p->rows, high);
    for (long u = first; u < last; u++) {
        long j = u / down * ACROSS, vectors = parts(p->columns - j, LANES);
        long i = least(u % down * high, p->rows - high);  // the last ones may overlap
        if (high == 1) tile(p, i, j, 1, WIDE);
        else if (vectors == 1) tile(p, i, j, ROWS, 1);
        else if (vectors == 2) tile(p, i, j, ROWS, 2);
        else tile(p, i, j, ROWS, WIDE);
    }
}

static int multiply(Product p) {
    long panels = parts(p.columns, ACROSS);
    if (packed(&p)) {
        p.panels = scratch(PANELS, panels * ACROSS * p.depth * sizeof(float));
        if (!p.panels) return NO_MEMORY;
        share(pack, &p, panels);
    }
    share(tiles, &p, panels * parts(p.rows, p.rows < ROWS ? 1 : ROWS));
    return DONE;
}

// c(i, j) = start(j) + sum of b(k, j) over the k in list i, ascending: the product with a matrix of
// zeros and ones, of which binary MNIST has 13 ones in a hundred.
typedef struct {
    long rows, columns;
    const int32_t *lists; long list_size;  // of each list: its length, then its members
    const float *b;
    float *c; const float *start;
    int relu;
} Sums;

INLINE void sum_strip(const Sums *p, long i, long j, const int wide) {
    const int32_t *list = p->lists + i * p->list_size;
    V sum[8];
    UNROLL for (int v = 0; v < wide; v++)
        sum[v] = p->start ? LOAD(p->start + j + v * LANES) : (V){0};
    for (int32_t n = 1; n <= list[0]; n++)
        UNROLL for (int v = 0; v < wide; v++)
            sum[v] += LOAD(p->b + list[n] * p->columns + j + v * LANES);
    UNROLL for (int v = 0; v < wide; v++) {
        V x = p->relu ? (V)((Mask)sum[v] & ~(sum[v] < 0)) : sum[v];
        store(p->c + i * p->columns + j + v * LANES, x, p->columns - j - v * LANES);
    }
}

static void strips(void *of, long first, long last) {
    const Sums *p = of;
    for (long u = first; u < last; u++) {
        long i = u % p->rows, j = u / p->rows * 8 * LANES;
        if (p->columns - j > 2 * LANES) sum_strip(p, i, j, 8);
        else sum_strip(p, i, j, 2);
    }
}

static void sum_rows(Sums p) { share(strips, &p, p.rows * parts(p.columns, 8 * LANES)); }
