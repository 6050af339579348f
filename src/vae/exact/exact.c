// A VAE of fully connected layers in float32, with the same bits on every machine: kernel.py says
// why. Activations are (images, features), weights (inputs, outputs).
#include "functions.h"
#include "products.h"

#include <float.h>
#include <stdlib.h>

// What Python calls begins with EXACTLY: until it returns, the processor is in its standard mode,
// which rounds to the nearest and keeps subnormal numbers.
#define EXACTLY fenv_t caller __attribute__((cleanup(restore_mode))); \
                fegetenv(&caller), fesetenv(FE_DFL_ENV)
static void restore_mode(fenv_t *caller) { fesetenv(caller); }

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

// The objective. Row i of what has `rows` rows belongs to row i % many of what has `many`.

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

typedef struct {
    const float *logits; const uint8_t *images;
    long pixels, many;
    double *terms; float *gradient;
} Bernoulli;

static void bernoulli_rows(void *of, long first, long last) {
    const Bernoulli *p = of;
    for (long i = first; i < last; i++)
        p->terms[i] = bernoulli(p->logits + i * p->pixels, p->images + i % p->many * p->pixels,
                                p->pixels, p->gradient ? p->gradient + i * p->pixels : NULL);
}

void reconstruction(const float *logits, const uint8_t *images, long rows, long many, long pixels,
                    double *terms) {
    EXACTLY;
    share(bernoulli_rows, &(Bernoulli){logits, images, pixels, many, terms, NULL}, rows);
}

// KL(q(z | x) || N(0, 1)) = 1/2 sum of exp(v) + m^2 - 1 - v, m the mean and v the log-variance.
void kl(const float *mean, const float *log_variance, long stride, long rows, long latent,
        double *terms) {
    EXACTLY;
    for (long i = 0; i < rows; i++) {
        const float *m = mean + i * stride, *v = log_variance + i * stride;
        double sum = 0;
        for (long j = 0; j < latent; j++) sum += exp_(v[j]) + (double)m[j] * m[j] - 1 - v[j];
        terms[i] = 0.5 * sum;
    }
}

// z = m + exp(v / 2) noise.
void sample(const float *mean, const float *log_variance, long stride, const float *noise,
            long rows, long many, long latent, float *z) {
    EXACTLY;
    for (long i = 0; i < rows; i++, z += latent, noise += latent) {
        const float *m = mean + i % many * stride, *v = log_variance + i % many * stride;
        for (long j = 0; j < latent; j++) z[j] = (float)(m[j] + exp_(0.5 * v[j]) * noise[j]);
    }
}

// By m: by_z + beta m. By v: 1/2 (by_z noise exp(v / 2) + beta exp(v) - beta). Beta weighs the KL.
static void sample_backward(const float *mean, const float *log_variance, long stride,
                            const float *noise, long rows, long latent, const float *by_z,
                            float *by_mean, double beta) {
    for (long i = 0; i < rows; i++, by_z += latent, noise += latent) {
        const float *m = mean + i * stride, *v = log_variance + i * stride;
        float *by_m = by_mean + i * stride, *by_v = by_m + latent;
        for (long j = 0; j < latent; j++) {
            double s = exp_(0.5 * v[j]), by_s = (double)by_z[j] * noise[j];
            by_m[j] = (float)(by_z[j] + beta * m[j]);
            by_v[j] = (float)(0.5 * (by_s * s + beta * exp_(v[j]) - beta));
        }
    }
}

// The model. Layers 0 to `encoders` are the encoder's; the first takes pixels, as lists.
typedef struct {
    long inputs, outputs;
    int relu;
    float *w, *b, *by_w, *by_b;   // weight (inputs, outputs), bias, and the gradients by them
    float *x, *by_x, *y, *by_y;   // what goes in (the pixels: NULL) and out
} Layer;
typedef struct {
    long layers, encoders, pixels, latent, room, count;  // room for so many images; `count` are in
    uint8_t *images;                    // (count, pixels)
    int32_t *pixels_of, *images_of;     // lists: an image's pixels, a pixel's images
    float *panels;                      // for the products
    void **blocks; int full;
    Layer layer[];
} Net;

// Memory of the net's, freed with it; where there is none, net->full is set.
static void *block(Net *net, long count, long size) {
    void **new = aligned_alloc(64, parts(count * size + 256, 64) * 64);
    if (!new) return net->full = 1, NULL;
    *new = net->blocks, net->blocks = new;
    return (char *)new + 64;
}

void free_net(Net *net) {
    for (void **at = net->blocks, **next; at; at = next) next = *at, free(at);
    free(net);
}

// A model with room for so many images, or NULL without memory for it. `sizes`: the encoder's, pixels
// to 2 latent, then the decoder's, latent to pixels. Values and gradients hold each layer's weights,
// then its biases. Without gradients it cannot train.
Net *make_net(const int64_t *sizes, long encoders, long decoders, long room, float *values,
              float *gradients) {
    Net *net = calloc(1, sizeof *net + (encoders + decoders) * sizeof(Layer));
    if (!net) return NULL;
    long pixels = net->pixels = sizes[0], layers = net->layers = encoders + decoders;
    long at = 0, panels = 0;
    net->encoders = encoders, net->latent = sizes[encoders + 1], net->room = room;
    net->images = block(net, room * pixels, 1);
    net->pixels_of = block(net, room * (pixels + 2), sizeof(int32_t));
    net->images_of = block(net, gradients ? pixels * (room + 2) : 0, sizeof(int32_t));
    for (long i = 0; i < layers; i++) {
        Layer *l = net->layer + i;
        l->inputs = sizes[i + (i >= encoders)], l->outputs = sizes[i + (i >= encoders) + 1];
        l->relu = i != encoders - 1 && i != layers - 1;
        long deepest = l->inputs > room ? l->inputs : room;
        long size = deepest * (l->outputs + ACROSS) + l->outputs * ACROSS;
        if (i && size > panels) panels = size;
        l->w = values + at, l->b = l->w + l->inputs * l->outputs;
        if (gradients) l->by_w = gradients + at, l->by_b = l->by_w + l->inputs * l->outputs;
        at += (l->inputs + 1) * l->outputs;
        if (i == encoders) {
            l->x = block(net, room * l->inputs, sizeof(float));
            l->by_x = block(net, gradients ? room * l->inputs : 0, sizeof(float));
        } else if (i) l->x = l[-1].y, l->by_x = l[-1].by_y;
        l->y = block(net, room * l->outputs, sizeof(float));
        l->by_y = block(net, gradients ? room * l->outputs : 0, sizeof(float));
    }
    net->panels = block(net, panels, sizeof(float));
    if (net->full) return free_net(net), NULL;
    return net;
}

// List i: the k, of `length`, for which bit (i, k) is set.
typedef struct { const uint8_t *bits; long by_i, by_k, length; int32_t *lists; } Lists;

static void list_bits(void *of, long first, long last) {
    const Lists *p = of;
    for (long i = first; i < last; i++) {
        int32_t *list = p->lists + i * (p->length + 2), n = 1;
        for (long k = 0; k < p->length; k++) list[n] = k, n += p->bits[i * p->by_i + k * p->by_k];
        list[0] = n - 1;
    }
}

static void load(Net *net, const uint8_t *images, const int64_t *order, long count) {
    net->count = count;
    for (long i = 0; i < count; i++)
        memcpy(net->images + i * net->pixels, images + (order ? order[i] : i) * net->pixels,
               net->pixels);
    share(list_bits, &(Lists){net->images, net->pixels, 1, net->pixels, net->pixels_of}, count);
}

static void forward(Net *net, long from, long to) {  // y = relu(x W + b)
    for (Layer *l = net->layer + from; l < net->layer + to; l++)
        if (l == net->layer)
            sum_rows((Sums){net->count, l->outputs, net->pixels_of, net->pixels + 2, l->w,
                            l->y, l->b, l->relu});
        else
            multiply((Product){net->count, l->outputs, l->inputs, l->x, l->inputs, 1,
                               l->w, l->outputs, 1, l->y, l->b, l->relu, NULL, net->panels});
}

// By b: the sum of by_y; by W: x' by_y; by x: by_y W', and 0 where a ReLU's x is.
static void backward(Net *net, long from, long to) {
    for (Layer *l = net->layer + to - 1; l >= net->layer + from; l--) {
        long count = net->count, inputs = l->inputs, outputs = l->outputs;
        memset(l->by_b, 0, outputs * sizeof(float));
        for (long i = 0; i < count; i++)
            for (long j = 0; j < outputs; j++) l->by_b[j] += l->by_y[i * outputs + j];
        if (l == net->layer) {
            share(list_bits, &(Lists){net->images, 1, inputs, count, net->images_of}, inputs);
            sum_rows((Sums){inputs, outputs, net->images_of, count + 2, l->by_y, l->by_w, NULL, 0});
        } else {
            multiply((Product){inputs, outputs, count, l->x, 1, inputs, l->by_y, outputs, 1,
                               l->by_w, NULL, 0, NULL, net->panels});
            multiply((Product){count, inputs, outputs, l->by_y, outputs, 1, l->w, 1, outputs,
                               l->by_x, NULL, 0, l[-1].relu ? l->x : NULL, net->panels});
        }
    }
}

// Sets the gradients of images[order]'s summed reconstruction + beta KL; terms (2, count): the two.
void gradient(Net *net, const uint8_t *images, const int64_t *order, long count, const float *noise,
              double beta, double *terms) {
    EXACTLY;
    Layer *code = net->layer + net->encoders - 1, *out = net->layer + net->layers - 1;
    float *mean = code->y, *log_variance = mean + net->latent, *z = code[1].x;
    long d = net->latent;
    load(net, images, order, count);
    forward(net, 0, net->encoders);
    sample(mean, log_variance, 2 * d, noise, count, count, d, z);
    kl(mean, log_variance, 2 * d, count, d, terms + count);
    forward(net, net->encoders, net->layers);
    Bernoulli rows = {out->y, net->images, net->pixels, count, terms, out->by_y};
    share(bernoulli_rows, &rows, count);
    backward(net, net->encoders, net->layers);
    sample_backward(mean, log_variance, 2 * d, noise, count, d, code[1].by_x, code->by_y, beta);
    backward(net, 0, net->encoders);
}

// Images (count, pixels) to the posterior's mean beside its log-variance, (count, 2 latent).
void encode(Net *net, const uint8_t *images, long count, float *posterior) {
    EXACTLY;
    Layer *code = net->layer + net->encoders - 1;
    for (long at = 0; at < count; at += net->room) {
        load(net, images + at * net->pixels, NULL, least(net->room, count - at));
        forward(net, 0, net->encoders);
        memcpy(posterior + at * code->outputs, code->y, net->count * code->outputs * sizeof(float));
    }
}

void decode(Net *net, const float *z, long count, float *logits) {
    EXACTLY;
    Layer *first = net->layer + net->encoders, *last = net->layer + net->layers - 1;
    for (long at = 0; at < count; at += net->room) {
        net->count = least(net->room, count - at);
        memcpy(first->x, z + at * net->latent, net->count * net->latent * sizeof(float));
        forward(net, net->encoders, net->layers);
        memcpy(logits + at * net->pixels, last->y, net->count * net->pixels * sizeof(float));
    }
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

// Adam (Kingma and Ba, 2015), the form at the end of its section 2; `step` counts from 1.
void adam(float *values, const float *gradients, float *first, float *second, long count, long step,
          double rate, double beta1, double beta2, double epsilon) {
    EXACTLY;
    rate *= __builtin_sqrt(1 - power(beta2, step)) / (1 - power(beta1, step));
    Adam all = {values, gradients, first, second, count,
                rate, beta1, 1 - beta1, beta2, 1 - beta2, epsilon};
    share(adam_values, &all, parts(count, 1024));
}
