/* Random numbers equal to those of torch's CPU generator, on any machine.

   torch's integers are the same everywhere. Its normal numbers are not: sixteen or more come from
   code for the processor at hand, fewer from the C library's log, sin and cos. Here all is written
   out in + - * / sqrt and fused multiply-adds, each of which IEEE 754 rounds in one way only. The
   bits are those of torch where it has AVX2.

   The loops have no branches, so that a compiler makes vector code of them. No bit depends on it. */

#include <stdint.h>

/* What torch.Generator.get_state() holds (ATen/CPUGeneratorImpl.cpp), 5056 bytes. */
struct generator {
    uint64_t seed;
    int32_t left, seeded; /* `left` - 1 words are unused */
    uint64_t next, words[624];
    double unused_x, spare, unused_rho; /* `spare`: a pair's second normal, not yet handed out */
    int32_t has_spare;
    float float_spare;
    int32_t has_float_spare;
};

/* The Mersenne Twister: Matsumoto and Nishimura, ACM TOMACS 8 (1998), 3-30. */
static inline uint64_t twisted(uint64_t high, uint64_t low) {
    uint64_t joined = (high & 0x80000000) | (low & 0x7fffffff);
    return joined >> 1 ^ (joined & 1 ? 0x9908b0df : 0);
}

static inline uint32_t tempered(uint64_t word) {
    uint32_t y = (uint32_t)word;
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680;
    y ^= y << 15 & 0xefc60000;
    return y ^ y >> 18;
}

/* The next words, `wanted` of them or fewer, but at least one; sets `wanted` to how many. */
static const uint64_t *take(struct generator *g, int64_t *wanted) {
    uint64_t *word = g->words;
    if (g->left == 1) {
        for (int k = 0; k < 227; k++)
            word[k] = word[k + 397] ^ twisted(word[k], word[k + 1]);
        for (int k = 227; k < 623; k++)
            word[k] = word[k - 227] ^ twisted(word[k], word[k + 1]);
        word[623] = word[396] ^ twisted(word[623], word[0]);
        g->left = 625;
        g->next = 0;
    }
    if (*wanted > g->left - 1)
        *wanted = g->left - 1;
    word += g->next;
    g->left -= (int32_t)*wanted;
    g->next += (uint64_t)*wanted;
    return word;
}

/* Uniform in [0, 1), of 24 bits each. */
static void uniforms(struct generator *g, float *out, int64_t size) {
    while (size > 0) {
        int64_t count = size;
        const uint64_t *word = take(g, &count);
        for (int64_t i = 0; i < count; i++)
            out[i] = (float)(int32_t)(tempered(word[i]) & 0xffffff) * 0x1p-24f;
        out += count;
        size -= count;
    }
}

/* Uniform in [0, 1), of 53 bits. */
static double uniform64(struct generator *g) {
    int64_t one = 1;
    uint64_t high = tempered(*take(g, &one)), low = tempered(*take(g, &one));
    return (double)((high << 32 | low) & 0x1fffffffffffff) * 0x1p-53;
}

/* As torch seeds it: by Knuth's recurrence, from the seed's low 32 bits. */
void seed_generator(struct generator *g, uint64_t seed) {
    *g = (struct generator){.seed = seed, .left = 1, .seeded = 1};
    uint64_t *word = g->words;
    word[0] = seed & 0xffffffff;
    for (int k = 1; k < 624; k++)
        word[k] = (1812433253 * (word[k - 1] ^ word[k - 1] >> 30) + (uint64_t)k) & 0xffffffff;
}

/* 63 random bits. */
int64_t random_integer(struct generator *g) {
    int64_t one = 1;
    uint64_t high = tempered(*take(g, &one)), low = tempered(*take(g, &one));
    return (int64_t)((high << 32 | low) & 0x7fffffffffffffff);
}

/* 0 to size - 1 in random order: Fisher and Yates, Statistical Tables (1938), example 12. */
void permute(struct generator *g, int64_t *order, int64_t size) {
    for (int64_t i = 0; i < size; i++)
        order[i] = i;
    for (int64_t i = 0; i + 1 < size; i++) {
        int64_t one = 1, j = i + tempered(*take(g, &one)) % (size - i), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

/* Uniform in [-bound, bound). */
void fill_uniform(struct generator *g, float *out, int64_t size, float bound) {
    uniforms(g, out, size);
    for (int64_t i = 0; i < size; i++)
        out[i] = __builtin_fmaf(out[i], 2 * bound, -bound);
}

static inline float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

/* log, sin and cos in float32, by the polynomials of Cephes (Moshier: logf.c, sinf.c) with the
   operations and their order of ATen/native/cpu/avx_mathfun.h (Pommier; Garberoglio). torch's
   compiler fuses each product with the sum it goes into. Where two products meet in a sum, only one
   can be fused; which one, comparing bits showed. */
static inline float log32(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    float exponent = (float)((int32_t)(bits >> 23) - 126);
    bits = (bits & 0x807fffff) | 0x3f000000;
    __builtin_memcpy(&x, &bits, 4); /* in [1/2, 1) */
    int low = bits < 0x3f3504f3; /* x < sqrt(1/2) */
    exponent -= (float)low;
    x = (x - 1.0f) + (float)low * x;
    float z = x * x, y = 7.0376836292E-2f;
    y = fma32(y, x, -1.1514610310E-1f);
    y = fma32(y, x, 1.1676998740E-1f);
    y = fma32(y, x, -1.2420140846E-1f);
    y = fma32(y, x, 1.4249322787E-1f);
    y = fma32(y, x, -1.6668057665E-1f);
    y = fma32(y, x, 2.0000714765E-1f);
    y = fma32(y, x, -2.4999993993E-1f);
    y = fma32(y, x, 3.3333331174E-1f);
    y = fma32(y * x, z, exponent * -2.12194440e-4f);
    return fma32(exponent, 0.693359375f, x + fma32(-0.5f, z, y));
}

static inline void sincos32(float x, float *sine, float *cosine) {
    int32_t octant = ((int32_t)(x * 1.27323954473516f) + 1) & ~1; /* 4 / pi */
    float y = (float)octant;
    x = fma32(y, -0.78515625f, x); /* pi / 4 in three parts */
    x = fma32(y, -2.4187564849853515625e-4f, x);
    x = fma32(y, -3.77489497744594108e-8f, x);
    float z = x * x, c = 2.443315711809948E-005f, s = -1.9515295891E-4f;
    c = fma32(c, z, -1.388731625493765E-003f);
    c = fma32(c, z, 4.166664568298827E-002f);
    c = fma32(c * z, z, -0.5f * z) + 1.0f;
    s = fma32(s, z, 8.3321608736E-3f);
    s = fma32(s, z, -1.6666654611E-1f);
    s = fma32(s * z, x, x);
    int swap = octant & 2;
    float a = swap ? c : s, b = swap ? s : c;
    *sine = octant & 4 ? -a : a;
    *cosine = (octant + 2) & 4 ? -b : b;
}

/* Sixteen uniform numbers become normal, eight radii and eight angles: Box and Muller, Annals of
   Mathematical Statistics 29 (1958), 610-611. */
static void box_muller16(float *out) {
    for (int k = 0; k < 8; k++) {
        float radius = __builtin_sqrtf(-2.0f * log32(1.0f - out[k])), sine, cosine;
        sincos32(6.283185307179586f * out[k + 8], &sine, &cosine);
        out[k] = radius * cosine + 0.0f; /* torch adds the mean, which makes -0 a 0 */
        out[k + 8] = radius * sine + 0.0f;
    }
}

/* log(x) of x in (0, 1], for x = m 2^exponent with m in [0.7, 1.42]: the series of
   log(m) = 2 atanh((m - 1) / (m + 1)). Right to about a unit in the last place, as sincos64 is: any
   exact enough log gives the same float32 in the end, but for one draw in some 10^8. */
static double log64(double x) {
    uint64_t bits;
    __builtin_memcpy(&bits, &x, 8);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffff) | 0x3ff0000000000000;
    __builtin_memcpy(&x, &bits, 8); /* in [1, 2) */
    if (x > 1.4142135623730951) {
        x /= 2;
        exponent++;
    }
    double s = (x - 1) / (x + 1), sum = 0;
    for (int k = 25; k > 1; k -= 2)
        sum = (sum + 1.0 / k) * s * s;
    double log2_high = 0x1.62e42feep-1, log2_low = 0x1.a39ef35793c76p-33; /* high: exact products */
    return exponent * log2_high + (2 * s + (2 * s * sum + exponent * log2_low));
}

/* sin(x) and cos(x) of x in [0, 2 pi]: Taylor's series at the nearest multiple of pi / 2. */
static void sincos64(double x, double *sine, double *cosine) {
    int quarter = (int)(x * 0.6366197723675814 + 0.5); /* 2 / pi */
    x = __builtin_fma(-quarter, 0x1.921fb54442d18p0, x); /* pi / 2 in two parts */
    x = __builtin_fma(-quarter, 0x1.1a62633145c07p-54, x);
    double z = x * x, s = 0, c = 0;
    for (int k = 20; k > 0; k -= 2) {
        s = (1 - s) * z / (k * (k + 1));
        c = (1 - c) * z / (k * (k - 1));
    }
    s = x - x * s;
    c = 1 - c;
    double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = (quarter + 1) & 2 ? -b : b;
}

/* One normal number; its pair's second waits for the next call. */
static float normal(struct generator *g) {
    if (g->has_spare) {
        double spare = g->spare;
        g->has_spare = 0;
        g->spare = 0;
        return (float)(spare + 0.0);
    }
    double turn = uniform64(g), u = uniform64(g), sine, cosine;
    double radius = __builtin_sqrt(-2 * log64(1 - u));
    sincos64(6.283185307179586 * turn, &sine, &cosine);
    g->spare = radius * sine;
    g->has_spare = 1;
    return (float)(radius * cosine + 0.0);
}

/* What torch.randn(sizes[k]) would give, for each k in turn, to outs[k]. */
void fill_normals(struct generator *g, float *const *outs, const int64_t *sizes, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        float *out = outs[k];
        int64_t size = sizes[k];
        if (size < 16) {
            for (int64_t i = 0; i < size; i++)
                out[i] = normal(g);
            continue;
        }
        uniforms(g, out, size);
        for (int64_t i = 0; i + 16 <= size; i += 16)
            box_muller16(out + i);
        if (size % 16) { /* the last sixteen once more, from new numbers */
            uniforms(g, out + size - 16, 16);
            box_muller16(out + size - 16);
        }
    }
}
