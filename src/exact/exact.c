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

// A stack of linear layers: y = x W + b, then negatives become 0 (relu). W (inputs, outputs); b
// (outputs) or NULL: no bias. `by_w` and `by_b`: where the gradients go; NULL: not asked for.
typedef struct {
    const float *w, *b;
    float *by_w, *by_b;
    int64_t outputs, relu;
} Layer;

// List i: the k, of `length`, for which byte (i, k) is 1; others than 0 and 1 set `wrong`.
typedef struct { const uint8_t *bytes; long by_i, by_k, length; int32_t *lists; atomic_int wrong; } Lists;

static void list_ones(void *of, long first, long last) {
    Lists *p = of;
    for (long i = first; i < last; i++) {
        const uint8_t *bytes = p->bytes + i * p->by_i;
        int32_t *list = p->lists + i * (p->length + 2), n = 1;
        uint8_t all = 0;
        for (long k = 0, end; k < p->length; k = end) {
            uint64_t eight = 1;
            end = least(k + 8, p->length);
            if (p->by_k == 1 && end == k + 8) memcpy(&eight, bytes + k, 8);
            if (!eight) continue;  // most of an image is
            for (long j = k; j < end; j++) {
                uint8_t byte = bytes[j * p->by_k];
                list[n] = j, n += byte & 1, all |= byte;
            }
        }
        list[0] = n - 1;
        if (all > 1) p->wrong = 1;
    }
}

enum { BLOCK = 256 };  // rows at a time: their lists fit a cache

// A layer of bytes x, 0 or 1, by sums over the ones: equal bits, in an eighth of the work.
static int layer_of_bytes(const uint8_t *x, const Layer *l, float *y, long rows, long inputs) {
    int32_t *lists = scratch(LISTS, least(rows, BLOCK) * (inputs + 2) * sizeof(int32_t));
    if (!lists) return NO_MEMORY;
    for (long i = 0; i < rows; i += BLOCK) {
        long count = least(rows - i, BLOCK);
        Lists found = {x + i * inputs, inputs, 1, inputs, lists, 0};
        share(list_ones, &found, count);
        if (found.wrong) return NOT_BINARY;
        sum_rows((Sums){count, l->outputs, lists, inputs + 2, l->w, y + i * l->outputs, l->b, l->relu});
    }
    return DONE;
}

// By W: x' by_y; by sums over the ones where x is bytes.
static int by_weight(const void *x, int bytes, const Layer *l, const float *by_y, long rows, long inputs) {
    if (!bytes)
        return multiply((Product){inputs, l->outputs, rows, x, 1, inputs, by_y, l->outputs, 1, l->by_w,
                                  NULL, 0});
    int32_t *lists = scratch(LISTS, inputs * (rows + 2) * sizeof(int32_t));
    if (!lists) return NO_MEMORY;
    share(list_ones, &(Lists){x, 1, inputs, rows, lists, 0}, inputs);
    sum_rows((Sums){inputs, l->outputs, lists, rows + 2, by_y, l->by_w, NULL, 0});
    return DONE;
}

// x (rows, inputs), float32 or, of `bytes`, uint8. The outputs of all layers but the last follow each
// other in `hidden`, those of the last are y.
int linears(const void *x, long bytes, long rows, long inputs, const Layer *layers, long count,
            float *hidden, float *y) {
    EXACTLY;
    for (const Layer *l = layers; l < layers + count; l++, bytes = 0) {
        float *to = l == layers + count - 1 ? y : hidden;
        long outputs = l->outputs;
        int status = bytes ? layer_of_bytes(x, l, to, rows, inputs)
                           : multiply((Product){rows, outputs, inputs, x, inputs, 1, l->w, outputs, 1,
                                                to, l->b, l->relu});
        if (status) return status;
        x = to, inputs = outputs, hidden += rows * outputs;
    }
    return DONE;
}

// By y before the ReLU: 0 where y is not positive (y NULL: no ReLU); and by b: its sum over the rows.
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
    for (long at = 0; at < p->rows * p->outputs; at += p->outputs) {
        const float *by = p->by_y + at;
        if (p->y) {
            for (long j = from; j < to; j++) p->by[at + j] = p->y[at + j] > 0 ? by[j] : 0;
            by = p->by + at;
        }
        if (p->by_b) for (long j = from; j < to; j++) p->by_b[j] += by[j];
    }
}

// By W: by_weight; by x: by_y W'. by_x NULL: not asked for.
int linears_backward(const void *x, long bytes, long rows, long inputs, const Layer *layers, long count,
                     const float *hidden, const float *y, const float *by_y, float *by_x) {
    EXACTLY;
    for (long n = 0; n < count - 1; n++) hidden += rows * layers[n].outputs;
    for (long n = count - 1; n >= 0; n--) {
        const Layer *l = layers + n;
        long outputs = l->outputs, from = n ? l[-1].outputs : inputs;
        // Two memories by turns: one for the gradient that comes, one for the next.
        float *by = l->relu ? scratch(GRADIENT + n % 2, rows * outputs * sizeof(float)) : NULL;
        float *next = n ? scratch(GRADIENT + (n + 1) % 2, rows * from * sizeof(float)) : by_x;
        if ((l->relu && !by) || (n && !next)) return NO_MEMORY;
        if (by || l->by_b)
            share(output_columns, &(Outputs){by ? y : NULL, by_y, by, l->by_b, rows, outputs},
                  parts(outputs, WIDTH));
        if (by) by_y = by;
        y = hidden -= n ? rows * from : 0;
        if (l->by_w && by_weight(n ? y : x, bytes && !n, l, by_y, rows, from)) return NO_MEMORY;
        if (next && multiply((Product){rows, from, outputs, by_y, outputs, 1, l->w, 1, outputs, next,
                                       NULL, 0}))
            return NO_MEMORY;
        by_y = next;
    }
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
typedef struct {
    const float *p, *noise, *by_z; const double *by_terms;
    float *z, *by_p; double *terms;
    long latent;
} Gaussian;

static void gaussian_rows(void *of, long first, long last) {
    const Gaussian *p = of;
    for (long i = first; i < last; i++) {
        const float *m = p->p + i * 2 * p->latent, *v = m + p->latent;
        double sum = 0;
        for (long j = 0; j < p->latent; j++) {
            long at = i * p->latent + j;
            if (p->noise) p->z[at] = (float)(m[j] + exp_(0.5 * v[j]) * p->noise[at]);
            sum += exp_(v[j]) + (double)m[j] * m[j] - 1 - v[j];
        }
        p->terms[i] = 0.5 * sum;
    }
}

void gaussian(const float *p, const float *noise, float *z, double *terms, long rows, long latent) {
    EXACTLY;
    share(gaussian_rows, &(Gaussian){.p = p, .noise = noise, .z = z, .terms = terms, .latent = latent},
          rows);
}

// By m: by_z + b m. By v: 1/2 (by_z noise exp(v / 2) + b exp(v) - b), b the gradient by the KL. Both
// are one sum, rounded once: so z and KL are one operation.
static void gaussian_backward_rows(void *of, long first, long last) {
    const Gaussian *p = of;
    for (long i = first; i < last; i++) {
        const float *m = p->p + i * 2 * p->latent, *v = m + p->latent;
        float *by_m = p->by_p + i * 2 * p->latent, *by_v = by_m + p->latent;
        double b = p->by_terms[i];
        for (long j = 0; j < p->latent; j++) {
            long at = i * p->latent + j;
            double s = exp_(0.5 * v[j]), by = p->noise ? p->by_z[at] : 0;
            double by_s = p->noise ? by * p->noise[at] : 0;
            by_m[j] = (float)(by + b * m[j]);
            by_v[j] = (float)(0.5 * (by_s * s + b * exp_(v[j]) - b));
        }
    }
}

void gaussian_backward(const float *p, const float *noise, const float *by_z, const double *by_terms,
                       float *by_p, long rows, long latent) {
    EXACTLY;
    share(gaussian_backward_rows,
          &(Gaussian){p, noise, by_z, by_terms, .by_p = by_p, .latent = latent}, rows);
}

// Sums over the first axis of x (rows, columns), row after row.
void sum_over_rows(const double *x, double *sums, long rows, long columns) {
    EXACTLY;
    memset(sums, 0, columns * sizeof(double));
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) sums[j] += x[i * columns + j];
}

// Of a tensor of `count` values: their address, their gradients', both moments', and the number of this
// step, from 1.
typedef struct { float *w; const float *g; float *m, *v; int64_t count, step; } Values;
typedef struct { const Values *tensors; double rate, beta1, beta2; float epsilon; } Adam;
enum { PART = 1024 };

// The moments round after each multiplication, as PyTorch 1.1's did.
// w -= rate m / (sqrt(v) + epsilon). Moments that would be subnormal are 0: they only cost time.
static void adam_values(const Adam *a, Values p, long first, long last) {
    double correction = __builtin_sqrt(1 - power(a->beta2, p.step)) / (1 - power(a->beta1, p.step));
    float rate = a->rate * correction, b1 = a->beta1, c1 = 1 - a->beta1, b2 = a->beta2, c2 = 1 - a->beta2;
    float epsilon = a->epsilon;
    for (long i = first; i < last; i++) {
        float g = p.g[i], m = b1 * p.m[i] + c1 * g, v = b2 * p.v[i] + c2 * g * g;
        p.m[i] = m = m < FLT_MIN && m > -FLT_MIN ? 0 : m;
        p.v[i] = v = v < FLT_MIN ? 0 : v;
        p.w[i] = FMAF(-rate, m / (__builtin_sqrtf(v) + epsilon), p.w[i]);
    }
}

static void adam_parts(void *of, long first, long last) {  // parts of all tensors, one after the other
    const Adam *a = of;
    for (const Values *t = a->tensors; last > 0; t++) {
        long from = first > 0 ? first * PART : 0, to = least(last * PART, t->count);
        if (from < to) adam_values(a, *t, from, to);
        first -= parts(t->count, PART), last -= parts(t->count, PART);
    }
}

// Adam (Kingma and Ba, 2015), the form at the end of its section 2.
void adam(const Values *tensors, long count, double rate, double beta1, double beta2, double epsilon) {
    EXACTLY;
    long all = 0;
    for (const Values *t = tensors; t < tensors + count; t++) all += parts(t->count, PART);
    share(adam_parts, &(Adam){tensors, rate, beta1, beta2, epsilon}, all);
}

#include "convolution.h"
