// Random numbers equal to those of torch's CPU generator, on any machine, from the 32-bit words of a
// Mersenne Twister (random.py).
//
// torch's integers are the same everywhere. Its normal numbers are not: sixteen or more come from
// code for the processor at hand, fewer from the C library's log, sin and cos. Here all is written
// out in + - * / sqrt and fused multiply-adds, each of which IEEE 754 rounds in one way only. The
// bits are those of torch where it has AVX2.
#include "functions.h"

#include <string.h>

// 0 to size - 1 in random order: Fisher and Yates, Statistical Tables (1938), example 12.
void permute(const uint32_t *words, int64_t *order, int64_t size) {
    for (int64_t i = 0; i < size; i++) order[i] = i;
    for (int64_t i = 0; i + 1 < size; i++) {
        int64_t j = i + words[i] % (size - i), kept = order[i];
        order[i] = order[j], order[j] = kept;
    }
}

// log, sin and cos in float32, by the polynomials of Cephes (Moshier: logf.c, sinf.c) with the
// operations and their order of ATen/native/cpu/avx_mathfun.h (Pommier; Garberoglio). torch's
// compiler fuses each product with the sum it goes into. Where two products meet in a sum, only one
// can be fused; which one, comparing bits showed.
ALWAYS float log32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    float exponent = (float)((int32_t)(bits >> 23) - 126);
    bits = (bits & 0x807fffff) | 0x3f000000;
    memcpy(&x, &bits, 4);         // in [1/2, 1)
    int low = bits < 0x3f3504f3;  // x < sqrt(1/2)
    exponent -= (float)low;
    x = (x - 1.0f) + (float)low * x;
    float z = x * x, y = 7.0376836292E-2f;
    y = FMAF(y, x, -1.1514610310E-1f), y = FMAF(y, x, 1.1676998740E-1f);
    y = FMAF(y, x, -1.2420140846E-1f), y = FMAF(y, x, 1.4249322787E-1f);
    y = FMAF(y, x, -1.6668057665E-1f), y = FMAF(y, x, 2.0000714765E-1f);
    y = FMAF(y, x, -2.4999993993E-1f), y = FMAF(y, x, 3.3333331174E-1f);
    y = FMAF(y * x, z, exponent * -2.12194440e-4f);
    return FMAF(exponent, 0.693359375f, x + FMAF(-0.5f, z, y));
}

ALWAYS void sincos32(float x, float *sine, float *cosine) {
    int32_t octant = ((int32_t)(x * 1.27323954473516f) + 1) & ~1;  // 4 / pi
    float y = (float)octant;
    x = FMAF(y, -0.78515625f, x);  // pi / 4 in three parts
    x = FMAF(y, -2.4187564849853515625e-4f, x), x = FMAF(y, -3.77489497744594108e-8f, x);
    float z = x * x, c = 2.443315711809948E-005f, s = -1.9515295891E-4f;
    c = FMAF(c, z, -1.388731625493765E-003f), c = FMAF(c, z, 4.166664568298827E-002f);
    c = FMAF(c * z, z, -0.5f * z) + 1.0f;
    s = FMAF(s, z, 8.3321608736E-3f), s = FMAF(s, z, -1.6666654611E-1f);
    s = FMAF(s * z, x, x);
    float a = octant & 2 ? c : s, b = octant & 2 ? s : c;
    *sine = octant & 4 ? -a : a;
    *cosine = (octant + 2) & 4 ? -b : b;
}

// Sixteen words become eight radii and eight angles, and those sixteen normal numbers: Box and
// Muller, Annals of Mathematical Statistics 29 (1958), 610-611.
static void sixteen_normals(const uint32_t *words, float *out) {
    for (int k = 0; k < 8; k++) {
        float u = (float)(int32_t)(words[k] & 0xffffff) * 0x1p-24f, sine, cosine;
        float turn = (float)(int32_t)(words[k + 8] & 0xffffff) * 0x1p-24f;
        float radius = __builtin_sqrtf(-2.0f * log32(1.0f - u));
        sincos32(6.283185307179586f * turn, &sine, &cosine);
        out[k] = radius * cosine + 0.0f;  // torch adds the mean, which makes -0 a 0
        out[k + 8] = radius * sine + 0.0f;
    }
}

// `size` normal numbers, 16 or more, from as many words; where 16 does not divide the size, the last
// sixteen are drawn again from 16 more words.
void many_normals(const uint32_t *words, float *out, int64_t size) {
    for (int64_t i = 0; i + 16 <= size; i += 16) sixteen_normals(words + i, out + i);
    if (size % 16) sixteen_normals(words + size, out + size - 16);
}

// sin(x) and cos(x) of x in [0, 2 pi]: Taylor's series at the nearest multiple of pi / 2. Right to
// about a unit in the last place, as log_ is: any exact enough ones give the same float32 in the end,
// but for one draw in some 10^8.
static void sincos64(double x, double *sine, double *cosine) {
    int quarter = (int)(x * 0.6366197723675814 + 0.5);  // 2 / pi
    x = FMA(-quarter, 0x1.921fb54442d18p0, x);          // pi / 2 in two parts
    x = FMA(-quarter, 0x1.1a62633145c07p-54, x);
    double z = x * x, s = 0, c = 0;
    for (int k = 20; k > 0; k -= 2) {
        s = (1 - s) * z / (k * (k + 1));
        c = (1 - c) * z / (k * (k - 1));
    }
    s = x - x * s, c = 1 - c;
    double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = (quarter + 1) & 2 ? -b : b;
}

// A pair of normal numbers from each four words.
void normal_pairs(const uint32_t *words, double *out, int64_t pairs) {
    for (int64_t k = 0; k < pairs; k++, words += 4, out += 2) {
        uint64_t most = 0x1fffffffffffff;  // 53 bits
        double turn = (double)(((uint64_t)words[0] << 32 | words[1]) & most) * 0x1p-53;
        double u = (double)(((uint64_t)words[2] << 32 | words[3]) & most) * 0x1p-53, sine, cosine;
        double radius = __builtin_sqrt(-2 * log_(1 - u));
        sincos64(6.283185307179586 * turn, &sine, &cosine);
        out[0] = radius * cosine + 0.0, out[1] = radius * sine + 0.0;
    }
}
