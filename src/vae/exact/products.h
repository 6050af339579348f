// Products of matrices, and sums of chosen rows. The vectors' width, the tiles and the threads share
// out elements, never an element's sum. Arrays may be read 128 bytes beyond their ends.
#include "threads.h"

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

// A tile of a product is ROWS x (WIDE LANES) sums: as many as the processor's registers hold.
#if defined __AVX512F__
#include <immintrin.h>
enum { LANES = 16, ROWS = 12, WIDE = 2 };
#define VECTOR_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#elif defined __AVX2__ && defined __FMA__
#include <immintrin.h>
enum { LANES = 8, ROWS = 6, WIDE = 2 };
#define VECTOR_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#elif defined __aarch64__
#include <arm_neon.h>
enum { LANES = 4, ROWS = 6, WIDE = 4 };
#define VECTOR_FMA(a, b, c) vfmaq_f32(c, a, b)
#else
#error "a processor with fused multiply-add is needed: x86-64 with AVX2 and FMA, or 64-bit ARM"
#endif
typedef float V __attribute__((vector_size(4 * LANES)));
typedef float U __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef float Half __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
#define LOAD(at) ((V)*(const U *)(at))

INLINE void store(float *to, V x, long left) {  // of the lanes, only the `left` first
    if (left >= LANES) *(U *)to = x;
    else if (left > 0) memcpy(to, &x, left * sizeof(float));
}

// c(i, j) = start(j) + sum over k of a(i, k) b(k, j), each one chain of fused multiply-adds, k
// ascending. Then negatives become 0 (relu), or what stands where gate(i, j) is not positive.
typedef struct {
    long rows, columns, depth;
    const float *a; long a_row, a_k;
    const float *b; long b_k, b_column;  // one of the two is 1
    float *c; const float *start;        // start NULL: 0
    int relu; const float *gate;         // gate NULL: none; else laid out as c
} Product;
enum { ACROSS = WIDE * LANES, DEPTH = 1024 };

INLINE void tile(const Product *p, const float *panel, long i, long j, long k, long depth,
                 const int rows, const int wide) {
    const float *a = p->a + i * p->a_row + k * p->a_k, *from = k ? p->c + i * p->columns : p->start;
    V sum[ROWS][WIDE];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < wide; v++)
        sum[r][v] = from ? LOAD(from + (k ? r * p->columns : 0) + j + v * LANES) : (V){0};
    for (long n = 0; n < depth; n++, a += p->a_k, panel += ACROSS) {
        V right[WIDE];
        UNROLL for (int v = 0; v < wide; v++) right[v] = *(const V *)(panel + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            V left = a[r * p->a_row] - (V){0};
            UNROLL for (int v = 0; v < wide; v++) sum[r][v] = VECTOR_FMA(left, right[v], sum[r][v]);
        }
    }
    int last = k + depth == p->depth;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < wide; v++) {
        long column = j + v * LANES, at = (i + r) * p->columns + column;
        V x = sum[r][v];
        if (last && p->relu) x = (V)((Mask)x & ~(x < 0));
        if (last && p->gate) x = (V)((Mask)x & (LOAD(p->gate + at) > 0));
        store(p->c + at, x, p->columns - column);
    }
}

// Rows of b from `k` on, ACROSS columns of each from `j` on. Beyond b's last column, anything.
static void pack(const Product *p, float *panel, long j, long k, long depth) {
    long columns = least(ACROSS, p->columns - j);
    const float *b = p->b + k * p->b_k + j * p->b_column;
    if (p->b_column == 1)
        for (long n = 0; n < depth; n++)
            UNROLL for (int v = 0; v < WIDE; v++)
                *(V *)(panel + n * ACROSS + v * LANES) = LOAD(b + n * p->b_k + v * LANES);
    else
        for (long from = 0; from < depth; from += 16)
            for (long l = 0; l < ACROSS; l++)
                for (long n = from; n < least(from + 16, depth); n++)
                    panel[n * ACROSS + l] = b[least(l, columns - 1) * p->b_column + n];
}

#define ROWS_OF(n) case n: \
    if (p->columns - j > LANES) tile(p, panel, i, j, k, depth, n, WIDE); \
    else tile(p, panel, i, j, k, depth, n, 1); \
    break;
static void multiply_part(void *of, long first, long last) {  // units are tiles, down the columns
    const Product *p = of;
    float panel[DEPTH * ACROSS] __attribute__((aligned(64)));
    long down = parts(p->rows, ROWS);  // rows are shared out evenly among the tiles
    for (long end; first < last; first = end) {
        end = least(last, (first / down + 1) * down);
        for (long j = first / down * ACROSS, k = 0; k < p->depth; k += DEPTH) {
            long depth = least(DEPTH, p->depth - k);
            pack(p, panel, j, k, depth);
            for (long u = first; u < end; u++) {
                long i = u % down * p->rows / down, next = (u % down + 1) * p->rows / down;
                switch (next - i) {
                    ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4) ROWS_OF(5) ROWS_OF(6)
#ifdef __AVX512F__
                    ROWS_OF(7) ROWS_OF(8) ROWS_OF(9) ROWS_OF(10) ROWS_OF(11) ROWS_OF(12)
#endif
                }
            }
        }
    }
}

static void multiply(Product p) {
    share(multiply_part, &p, parts(p.rows, ROWS) * parts(p.columns, ACROSS));
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
enum { STRIP = 8 };

INLINE void sum_strip(const Sums *p, long i, long j, const int wide) {
    const int32_t *list = p->lists + i * p->list_size;
    V sum[STRIP];
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

static void sum_part(void *of, long first, long last) {
    const Sums *p = of;
    for (long u = first; u < last; u++) {
        long i = u % p->rows, j = u / p->rows * STRIP * LANES;
        long vectors = parts(p->columns - j, LANES);
        if (vectors > 4) sum_strip(p, i, j, 8);
        else if (vectors > 2) sum_strip(p, i, j, 4);
        else sum_strip(p, i, j, 2);
    }
}

static void sum_rows(Sums p) { share(sum_part, &p, p.rows * parts(p.columns, STRIP * LANES)); }
