// exp, log and powers of one number, of nothing but + - * / and fused multiply-add.
#include <math.h>
#include <stdint.h>

#define FMA __builtin_fma
#define FMAF __builtin_fmaf
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS float exp_negative(float x) {  // exp(max(x, -87)) of x <= 0: never subnormal
    x = x < -87 ? -87 : x;
    union { float f; uint32_t i; } n = {FMAF(x, 1.44269504f, 12582912)};  // ends in x / log 2, rounded
    float whole = n.f - 12582912, p = 1.0f / 720;
    float r = FMAF(whole, -1.42860677e-6f, FMAF(whole, -0.693145752f, x));
    p = FMAF(p, r, 1.0f / 120), p = FMAF(p, r, 1.0f / 24), p = FMAF(p, r, 1.0f / 6);
    p = FMAF(p, r, 0.5f), p = FMAF(p, r, 1), p = FMAF(p, r, 1);
    n.i = (n.i + 127) << 23;
    return p * n.f;
}

ALWAYS double exp_(double x) {  // 0 below -700; infinite where float32's is
    double y = x < -700 ? -700 : x > 100 ? 100 : x, p = 1.0 / 6227020800;
    union { double f; uint64_t i; } n = {FMA(y, 1.4426950408889634, 6755399441055744)};
    double whole = n.f - 6755399441055744;
    double r = FMA(whole, -2.3190468138462996e-17, FMA(whole, -0.6931471805599453, y));
    static const double inverse[] = {  // of the factorials of 12 to 0
        1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1, 1};
    for (int i = 0; i < 13; i++) p = FMA(p, r, inverse[i]);
    n.i = (n.i + 1023) << 52;
    return x < -700 ? 0 : x > 88.72283905206835 ? INFINITY : p * n.f;
}

ALWAYS double log_(double x) {  // of a normal number, 2^e m with m from sqrt(1/2) to sqrt(2)
    union { double f; int64_t i; } u = {x};
    int64_t e = (u.i - 0x3FE6A09E667F3BCD) >> 52;
    u.i -= e * (1ll << 52);
    double s = (u.f - 1) / (u.f + 1), q = s * s, p = 1.0 / 23;
    for (int n = 21; n > 0; n -= 2) p = FMA(p, q, 1.0 / n);
    return FMA((double)e, 0.6931471805599453, 2 * s * p);
}

ALWAYS double power(double x, long n) {
    double y = 1;
    for (; n; n /= 2, x *= x) y *= n % 2 ? x : 1;
    return y;
}
