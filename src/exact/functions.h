// exp, log and powers of one number, of nothing but + - * / and fused multiply-add.
#pragma once
#include <math.h>
#include <stdint.h>

#define FMA __builtin_fma
#define FMAF __builtin_fmaf
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS double exp_(double x) {  // 0 below -700; infinite where float32's is
    double y = x < -700 ? -700 : x > 100 ? 100 : x, p = 1.0 / 6227020800;
    union { double f; uint64_t i; } n = {FMA(y, 1.4426950408889634, 6755399441055744)};
    double whole = n.f - 6755399441055744;
    double r = FMA(whole, -2.3190468138462996e-17, FMA(whole, -0.6931471805599453, y));
    p = FMA(p, r, 1.0 / 479001600), p = FMA(p, r, 1.0 / 39916800), p = FMA(p, r, 1.0 / 3628800);
    p = FMA(p, r, 1.0 / 362880), p = FMA(p, r, 1.0 / 40320), p = FMA(p, r, 1.0 / 5040);
    p = FMA(p, r, 1.0 / 720), p = FMA(p, r, 1.0 / 120), p = FMA(p, r, 1.0 / 24);
    p = FMA(p, r, 1.0 / 6), p = FMA(p, r, 0.5), p = FMA(p, r, 1), p = FMA(p, r, 1);
    n.i = (n.i + 1023) << 52;
    return x < -700 ? 0 : x > 88.72283905206835 ? INFINITY : p * n.f;
}

ALWAYS double log_(double x) {  // of a normal number or NaN: 2^e m, m from sqrt(1/2) to sqrt(2)
    union { double f; int64_t i; } u = {x};
    int64_t e = (u.i - 0x3FE6A09E667F3BCD) >> 52;
    u.i -= e * (1ll << 52);
    double s = (u.f - 1) / (u.f + 1), q = s * s, p = 1.0 / 23;
    for (int n = 21; n > 0; n -= 2) p = FMA(p, q, 1.0 / n);
    return x != x ? x : FMA((double)e, 0.6931471805599453, 2 * s * p);
}

ALWAYS double power(double x, long n) {
    double y = 1;
    for (; n; n /= 2, x *= x) y *= n % 2 ? x : 1;
    return y;
}
