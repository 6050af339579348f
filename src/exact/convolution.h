// Convolutions, as products of matrices: each row of the left factor is a copy of a patch of an image.
// Images (images, height, width, channels) are those of torch in its channels-last order.

// From image to patches. Position (i, j) sees `high` x `wide` pixels from (i down + top, j right + left)
// on; those outside the image are 0.
typedef struct {
    long images, height, width, channels, rows, columns, outputs;
    long high, wide, down, right, top, left;
} Geometry;
typedef struct { const float *x; float *to; const Geometry *of; } Patches;
#define GEOMETRY                                                                                       \
    long images, long height, long width, long channels, long rows, long columns, long outputs,        \
        long high, long wide, long down, long right, long top, long left
#define GIVEN \
    {images, height, width, channels, rows, columns, outputs, high, wide, down, right, top, left}

static void copy_patches(void *of, long first, long last) {  // rows of positions, of all images
    const Patches *p = of;
    const Geometry g = *p->of;
    for (long row = first; row < last; row++)
        for (long j = 0; j < g.columns; j++)
            for (long u = 0; u < g.high; u++) {
                long h = row % g.rows * g.down + g.top + u, w = j * g.right + g.left;
                long from = least(w < 0 ? -w : 0, g.wide), to = least(g.wide, g.width - w);
                if (h < 0 || h >= g.height || to < from) from = to = g.wide;
                const float *x = p->x + ((row / g.rows * g.height + h) * g.width + w) * g.channels;
                float *y = p->to + ((row * g.columns + j) * g.high + u) * g.wide * g.channels;
                for (long k = 0; k < from * g.channels; k++) y[k] = 0;
                for (long k = from * g.channels; k < to * g.channels; k++) y[k] = x[k];
                for (long k = to * g.channels; k < g.wide * g.channels; k++) y[k] = 0;
            }
}

// The patches of so many images as fit a cache: `count` from image `first` on.
static float *patches(const float *x, long first, long *count, const Geometry *g) {
    long size = g->rows * g->columns * g->high * g->wide * g->channels;
    *count = least(g->images - first, (1 << 18) / (size + 1) + 1);
    float *to = scratch(PATCHES, *count * size * sizeof(float));
    x += first * g->height * g->width * g->channels;
    if (to) share(copy_patches, &(Patches){x, to, g}, *count * g->rows);
    return to;
}

// y (images, rows, columns, outputs) = start from b, or 0 where it is NULL, and one chain of fused
// multiply-adds over a patch's rows, columns and channels, ascending. w (high, wide, channels, outputs).
int convolve(const float *x, const float *w, const float *b, float *y, GEOMETRY) {
    EXACTLY;
    const Geometry g = GIVEN;
    long depth = high * wide * channels, count;
    for (long n = 0; n < images; n += count) {
        const float *a = patches(x, n, &count, &g);
        float *to = y + n * rows * columns * outputs;
        if (!a || multiply((Product){count * rows * columns, outputs, depth, a, depth, 1, w, outputs, 1,
                                     to, b, 0}))
            return NO_MEMORY;
    }
    return DONE;
}

// By w: one chain over images, rows and columns of the positions, ascending.
int convolve_by_weight(const float *x, const float *by_y, float *by_w, GEOMETRY) {
    EXACTLY;
    const Geometry g = GIVEN;
    long depth = high * wide * channels, positions = rows * columns, count = 0;
    long bytes = depth * outputs * sizeof(float);
    float *before = scratch(KEPT, bytes);
    if (!before) return NO_MEMORY;
    memset(by_w, 0, bytes);
    for (long n = 0; n < images; n += count) {
        const float *a = patches(x, n, &count, &g);
        memcpy(before, by_w, bytes);
        if (!a || multiply((Product){depth, outputs, count * positions, a, 1, depth,
                                     by_y + n * positions * outputs, outputs, 1, by_w, before, 0, outputs}))
            return NO_MEMORY;
    }
    return DONE;
}
