// The operations of functional.py and optim.py: each forward function beside its backward one. Arrays
// are float32 and row by row unless it says otherwise; README.md says why their bits do not depend on
// the machine. A function that can fail returns one of these.
#include "functions.h"
#include "products.h"

#include <float.h>
#include <stdlib.h>

// What Python calls begins with EXACTLY: until it returns, the processor is in its standard mode,
// which rounds to the nearest and keeps subnormal numbers.
#define EXACTLY fenv_t caller __attribute__((cleanup(restore_mode))); \
                fegetenv(&caller), fesetenv(FE_DFL_ENV)
static void restore_mode(fenv_t *caller) { fesetenv(caller); }

// Linear: y = x W + b, then negatives become 0 (relu). x (rows, inputs), W (inputs, outputs), b
// (outputs) or NULL: no bias.
int linear(const float *x, const float *w, const float *b, float *y, long rows, long inputs,
           long outputs, long relu) {
    EXACTLY;
    return multiply((Product){rows, outputs, inputs, x, inputs, 1, w, outputs, 1, y, b, relu});
}

// By y, with 0 where the ReLU's y is not positive (y NULL: no ReLU); and by b: its sum over the rows.
typedef struct {
    const float *y, *by_y;
    float *by, *by_b;
    long rows, outputs;
} Outputs;
enum { WIDTH = 64 };  // columns at a time

static void output_columns(void *of, long first, long last) {
    const Outputs *p = of;
    long from = first * WIDTH, to = least(last * WIDTH, p->outputs);
    if (p->by_b) memset(p->by_b + from, 0, (to - from) * sizeof(float));
    for (long i = 0; i < p->rows; i++) {
        const float *by_y = p->by_y + i * p->outputs;
        float *by = p->by + i * p->outputs;
        if (p->y) for (long j = from; j < to; j++) by[j] = p->y[i * p->outputs + j] > 0 ? by_y[j] : 0;
        else memcpy(by + from, by_y + from, (to - from) * sizeof(float));
        if (p->by_b) for (long j = from; j < to; j++) p->by_b[j] += by[j];
    }
}

static const float *by_outputs(const float *y, const float *by_y, float *by_b, long rows,
                               long outputs) {
    float *by = scratch(GRADIENT, rows * outputs * sizeof(float));
    if (by) share(output_columns, &(Outputs){y, by_y, by, by_b, rows, outputs}, parts(outputs, WIDTH));
    return by;
}

// By W: x' by_y; by x: by_y W'. y: the output of a ReLU, or NULL. What is NULL of the others is not
// asked for.
int linear_backward(const float *x, const float *w, const float *y, const float *by_y, float *by_x,
                    float *by_w, float *by_b, long rows, long inputs, long outputs) {
    EXACTLY;
    const float *by = by_outputs(y, by_y, by_b, rows, outputs);
    if (!by) return NO_MEMORY;
    if (by_w && multiply((Product){inputs, outputs, rows, x, 1, inputs, by, outputs, 1, by_w, NULL, 0}))
        return NO_MEMORY;
    return by_x ? multiply((Product){rows, inputs, outputs, by, outputs, 1, w, 1, outputs, by_x, NULL, 0})
                : DONE;
}

// The same of bytes x, 0 or 1, by sums over the ones: equal bits, in an eighth of the work.
// List i: the k, of `length`, for which byte (i, k) is 1; others than 0 and 1 set `wrong`.
typedef struct { const uint8_t *bytes; long by_i, by_k, length; int32_t *lists; atomic_int wrong; } Lists;

static void list_ones(void *of, long first, long last) {
    Lists *p = of;
    for (long i = first; i < last; i++) {
        int32_t *list = p->lists + i * (p->length + 2), n = 1;
        uint8_t all = 0;
        for (long k = 0; k < p->length; k++) {
            uint8_t byte = p->bytes[i * p->by_i + k * p->by_k];
            list[n] = k, n += byte & 1, all |= byte;
        }
        list[0] = n - 1;
        if (all > 1) p->wrong = 1;
    }
}

enum { BLOCK = 256 };  // rows at a time: their lists fit a cache

int linear_of_bytes(const uint8_t *x, const float *w, const float *b, float *y, long rows, long inputs,
                    long outputs, long relu) {
    EXACTLY;
    int32_t *lists = scratch(LISTS, least(rows, BLOCK) * (inputs + 2) * sizeof(int32_t));
    if (!lists) return NO_MEMORY;
    for (long i = 0; i < rows; i += BLOCK) {
        long count = least(rows - i, BLOCK);
        Lists found = {x + i * inputs, inputs, 1, inputs, lists, 0};
        share(list_ones, &found, count);
        if (found.wrong) return NOT_BINARY;
        sum_rows((Sums){count, outputs, lists, inputs + 2, w, y + i * outputs, b, relu});
    }
    return DONE;
}

int linear_of_bytes_backward(const uint8_t *x, const float *y, const float *by_y, float *by_w,
                             float *by_b, long rows, long inputs, long outputs) {
    EXACTLY;
    const float *by = by_outputs(y, by_y, by_b, rows, outputs);
    int32_t *lists = scratch(LISTS, inputs * (rows + 2) * sizeof(int32_t));
    if (!by || !lists) return NO_MEMORY;
    if (!by_w) return DONE;
    share(list_ones, &(Lists){x, 1, inputs, rows, lists, 0}, inputs);
    sum_rows((Sums){inputs, outputs, lists, rows + 2, by, by_w, NULL, 0});
    return DONE;
}

// Elementwise functions.
INLINE V splat(float x) { return x - (V){0}; }
INLINE V choose(Mask which, V yes, V no) { return (V)((which & (Mask)yes) | (~which & (Mask)no)); }
INLINE V exp_negative(V x) {  // exp(max(x, -87)) of x <= 0: never subnormal
    x = choose(x < -87, splat(-87), x);
    V n = VECTOR_FMA(x, splat(1.44269504f), splat(12582912));  // its last bits: x / log 2, rounded
    V whole = n - 12582912, p = splat(1.0f / 720), r = VECTOR_FMA(whole, splat(-0.693145752f), x);
    r = VECTOR_FMA(whole, splat(-1.42860677e-6f), r);
    p = VECTOR_FMA(p, r, splat(1.0f / 120)), p = VECTOR_FMA(p, r, splat(1.0f / 24));
    p = VECTOR_FMA(p, r, splat(1.0f / 6)), p = VECTOR_FMA(p, r, splat(0.5f));
    p = VECTOR_FMA(p, r, splat(1)), p = VECTOR_FMA(p, r, splat(1));
    return p * (V)(((Mask)n + 127) << 23);
}

INLINE V sigmoid_of(V x, V e) {  // e: exp(-|x|)
    V q = 1 / (1 + e);
    return choose(x < 0, e * q, q);
}

void exponentials(double *x, long count) {
    EXACTLY;
    for (long i = 0; i < count; i++) x[i] = exp_(x[i]);
}

void logarithms(double *x, long count) {
    EXACTLY;
    for (long i = 0; i < count; i++) x[i] = log_(x[i]);
}

void sigmoid(const float *logits, float *to, long count) {
    EXACTLY;
    for (long i = 0; i < count; i += LANES) {
        V x = {0};
        memcpy(&x, logits + i, least(LANES, count - i) * sizeof(float));
        store(to + i, sigmoid_of(x, exp_negative(choose(x < 0, x, -x))), count - i);
    }
}

// -log p(x | z) = sum over pixels of log(1 + exp(l)) - l x, with log(1 + exp(l)) = max(l, 0) +
// log(1 + exp(-|l|)), these logs as one of their product, at most 2^1000. Gradient: sigmoid(l) - x.
INLINE double bernoulli(const float *logits, const uint8_t *image, long pixels, float *gradient) {
    double linear[16] = {0}, product[16];
    for (int l = 0; l < 16; l++) product[l] = 1;
    for (long from = 0; from < pixels; from += LANES) {
        long left = pixels - from;
        Bytes bytes = {0};
        V x = splat(-INFINITY);  // what stands beyond the last pixel adds 0
        if (left >= LANES) x = LOAD(logits + from), memcpy(&bytes, image + from, LANES);
        else memcpy(&x, logits + from, left * sizeof(float)), memcpy(&bytes, image + from, left);
        Mask on = __builtin_convertvector(bytes, Mask) != 0;
        V e = exp_negative(choose(x < 0, x, -x));
        V part = choose(x < 0, (V){0}, x) - choose(on, x, (V){0});
        for (int l = 0; l < LANES; l += LANES / 2) {
            Half *add = (Half *)((float *)&part + l), *by = (Half *)((float *)&e + l);
            *(Doubles *)(linear + from % 16 + l) += __builtin_convertvector(*add, Doubles);
            *(Doubles *)(product + from % 16 + l) *= 1 + __builtin_convertvector(*by, Doubles);
        }
        if (gradient) store(gradient + from, sigmoid_of(x, e) - choose(on, splat(1), (V){0}), left);
    }
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++)
            linear[l] += linear[l + half], product[l] *= product[l + half];
    return linear[0] + log_(product[0]);
}

// Row i of the logits belongs to row i % many of the images.
typedef struct {
    const float *logits; const uint8_t *images;
    long many, pixels;
    double *terms; float *gradient;
} Bernoulli;

static void bernoulli_rows(void *of, long first, long last) {
    const Bernoulli *p = of;
    for (long i = first; i < last; i++)
        p->terms[i] = bernoulli(p->logits + i * p->pixels, p->images + i % p->many * p->pixels,
                                p->pixels, p->gradient ? p->gradient + i * p->pixels : NULL);
}

void bernoulli_nll(const float *logits, const uint8_t *images, double *terms, float *gradient,
                   long rows, long many, long pixels) {
    EXACTLY;
    share(bernoulli_rows, &(Bernoulli){logits, images, many, pixels, terms, gradient}, rows);
}

// By the logits: the gradient from above, each row times the one by its term. Where these are all 1, as
// those of a sum are, by_logits is left alone and the status says so.
int bernoulli_nll_backward(const float *gradient, const double *by_terms, float *by_logits, long rows,
                           long pixels) {
    EXACTLY;
    long ones = 0;
    for (long i = 0; i < rows; i++) ones += by_terms[i] == 1;
    for (long i = 0; ones < rows && i < rows; i++)
        for (long j = 0; j < pixels; j++)
            by_logits[i * pixels + j] = (float)(by_terms[i] * gradient[i * pixels + j]);
    return ones == rows ? UNCHANGED : DONE;
}

// A diagonal Gaussian posterior q(z | x) in each row of p (rows, 2 latent): its mean m, beside it its
// log-variance v. z = m + exp(v / 2) noise, unless the noise is NULL; terms: KL(q(z | x) || N(0, 1)) =
// 1/2 sum of exp(v) + m^2 - 1 - v.
void gaussian(const float *p, const float *noise, float *z, double *terms, long rows, long latent) {
    EXACTLY;
    for (long i = 0; i < rows; i++) {
        const float *m = p + i * 2 * latent, *v = m + latent;
        double sum = 0;
        for (long j = 0; j < latent; j++) {
            long at = i * latent + j;
            if (noise) z[at] = (float)(m[j] + exp_(0.5 * v[j]) * noise[at]);
            sum += exp_(v[j]) + (double)m[j] * m[j] - 1 - v[j];
        }
        terms[i] = 0.5 * sum;
    }
}

// By m: by_z + b m. By v: 1/2 (by_z noise exp(v / 2) + b exp(v) - b), b the gradient by the KL. Both
// are one sum, rounded once: so z and KL are one operation.
void gaussian_backward(const float *p, const float *noise, const float *by_z, const double *by_terms,
                       float *by_p, long rows, long latent) {
    EXACTLY;
    for (long i = 0; i < rows; i++) {
        const float *m = p + i * 2 * latent, *v = m + latent;
        float *by_m = by_p + i * 2 * latent, *by_v = by_m + latent;
        double b = by_terms[i];
        for (long j = 0; j < latent; j++) {
            long at = i * latent + j;
            double s = exp_(0.5 * v[j]), by = noise ? by_z[at] : 0, by_s = noise ? by * noise[at] : 0;
            by_m[j] = (float)(by + b * m[j]);
            by_v[j] = (float)(0.5 * (by_s * s + b * exp_(v[j]) - b));
        }
    }
}

// Sums over the first axis of x (rows, columns), row after row.
void sum_over_rows(const double *x, double *sums, long rows, long columns) {
    EXACTLY;
    memset(sums, 0, columns * sizeof(double));
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) sums[j] += x[i * columns + j];
}

typedef struct {
    float *w; const float *g; float *m, *v;
    long count;
    float rate, b1, c1, b2, c2, epsilon;
} Adam;

// The moments round after each multiplication, as PyTorch 1.1's did.
// w -= rate m / (sqrt(v) + epsilon). Moments that would be subnormal are 0: they only cost time.
static void adam_values(void *of, long first, long last) {
    const Adam p = *(const Adam *)of;
    for (long i = first * 1024; i < least(last * 1024, p.count); i++) {
        float g = p.g[i], m = p.b1 * p.m[i] + p.c1 * g, v = p.b2 * p.v[i] + p.c2 * g * g;
        p.m[i] = m = m < FLT_MIN && m > -FLT_MIN ? 0 : m;
        p.v[i] = v = v < FLT_MIN ? 0 : v;
        p.w[i] = FMAF(-p.rate, m / (__builtin_sqrtf(v) + p.epsilon), p.w[i]);
    }
}

// Adam (Kingma and Ba, 2015), the form at the end of its section 2; `step` counts from 1. Of each
// tensor five numbers: the addresses of values, gradients, first and second moments, and the count.
void adam(const int64_t *tensors, long count, long step, double rate, double beta1, double beta2,
          double epsilon) {
    EXACTLY;
    rate *= __builtin_sqrt(1 - power(beta2, step)) / (1 - power(beta1, step));
    for (const int64_t *t = tensors; t < tensors + 5 * count; t += 5) {
        Adam all = {(float *)t[0], (const float *)t[1], (float *)t[2], (float *)t[3], t[4],
                    rate, beta1, 1 - beta1, beta2, 1 - beta2, epsilon};
        share(adam_values, &all, parts(t[4], 1024));
    }
}

#include "convolution.h"
