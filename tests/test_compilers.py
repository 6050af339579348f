"""The bits of the exact operations under every compiler, and on ARM."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import exact
from conftest import ROOT, bits, model_of
from exact import functional, library
from exact.random import Generator
from test_exact import POSTS
from test_exact_convolution import SHAPES
from vae.objective import loss_function

STEPS, IMAGES, WORDS = 100, 24, 100_019
# MD5 of a model's `reference`: of the C network that stood here before the operations.
HASHES = {
    "20d": ("782262502e3960194c0282035a5194f2", "332f1dbe645d4cc1b766e1ac0d0f2cb1"),
    "2d": ("346f42cfbd257bbcfda645d28ff79cf2", "95e1f7a1a9a912d8144d08cba9788adc"),
}
MODELS = dict(zip(HASHES, POSTS, strict=True))
# Reads sizes, values, images, rows, noise and words; chains the operations as the model's layers
# do. Then reads convolutions, until the file ends. Writes what `reference` and `convolutions` give.
DRIVER = r"""
#include "exact.c"
#include "draws.c"
#include <stdio.h>
#define GEOMETRY_OF(g) \
    g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12]
static long failed;
static void *room(long bytes) { return calloc(bytes + 512, 1); }
static void get(FILE *in, void *to, long size, long count) {
    failed += (long)fread(to, size, count, in) != count;
}
static float *numbers(FILE *in, long count) {
    float *to = room(4 * count);
    get(in, to, 4, count);
    return to;
}
static void put(const void *from, long size, long count) { fwrite(from, size, count, stdout); }
int main(int arguments, char **argument) {
    FILE *in = fopen(argument[arguments - 1], "rb");
    long n[6];  // encoder's and decoder's layers, values, images, steps, words
    get(in, n, 8, 6);
    long inner = n[0], layers = n[0] + n[1], batch = n[3];
    int64_t sizes[64], *size[64];  // of each layer: inputs, outputs
    get(in, sizes, 8, layers + 2);
    for (long l = 0; l < layers; l++) size[l] = sizes + l + (l >= inner);
    long pixels = sizes[0], latent = size[inner][0];
    float *all = numbers(in, n[2]), *gradients = room(4 * n[2]);
    float *first = room(4 * n[2]), *second = room(4 * n[2]);
    Values tensors[128], *t = tensors;
    Layer table[64];
    long at = 0, hidden_size = 0;
    for (long l = 0; l < layers; l++) {
        long inputs = size[l][0], outputs = size[l][1], counts[] = {inputs * outputs, outputs};
        float *values[2];
        for (int part = 0; part < 2; at += counts[part++]) {
            // Each of its own, since what lies behind it is read.
            values[part] = room(4 * counts[part]);
            memcpy(values[part], all + at, 4 * counts[part]);
            *t++ = (Values){values[part], gradients + at, first + at, second + at, counts[part], 0};
        }
        table[l] = (Layer){values[0], values[1], (float *)t[-2].g, (float *)t[-1].g, outputs,
                           l != inner - 1 && l != layers - 1};
        hidden_size += batch * outputs;
    }
    uint8_t *images = room(batch * pixels), *data = room(batch * pixels);
    int64_t *rows = room(8 * batch);
    float *noise = room(4 * batch * latent), *z = room(4 * batch * latent);
    float *by_z = room(4 * batch * latent), *by_logits = room(4 * batch * pixels);
    float *posterior = room(8 * batch * latent), *by_posterior = room(8 * batch * latent);
    float *logits = room(4 * batch * pixels), *unused = room(4 * batch * pixels);
    float *hidden[2] = {room(4 * hidden_size), room(4 * hidden_size)};
    double *nll = room(8 * batch), *kl = room(8 * batch), *ones = room(8 * batch);
    for (long i = 0; i < batch; i++) ones[i] = 1;
    get(in, images, 1, batch * pixels);
    set_threads(2);
    for (long step = 1; step <= n[4]; step++) {
        get(in, rows, 8, batch), get(in, noise, 4, batch * latent);
        for (long i = 0; i < batch; i++)
            memcpy(data + i * pixels, images + rows[i] * pixels, pixels);
        failed += linears(data, 1, batch, pixels, table, inner, hidden[0], posterior);
        gaussian(posterior, noise, z, kl, batch, latent);
        failed += linears(z, 0, batch, latent, table + inner, layers - inner, hidden[1], logits);
        bernoulli_nll(logits, data, nll, by_logits, batch, batch, pixels);
        failed += bernoulli_nll_backward(by_logits, ones, unused, batch, pixels) != UNCHANGED;
        failed += linears_backward(z, 0, batch, latent, table + inner, layers - inner, hidden[1],
                                   logits, by_logits, by_z);
        gaussian_backward(posterior, noise, by_z, ones, by_posterior, batch, latent);
        failed += linears_backward(data, 1, batch, pixels, table, inner, hidden[0], posterior,
                                   by_posterior, NULL);
        for (t = tensors; t < tensors + 2 * layers; t++) t->step = step;
        adam(tensors, 2 * layers, 1e-3, .9, .999, 1e-8);
        put(nll, 8, batch), put(kl, 8, batch);
    }
    for (t = tensors; t < tensors + 2 * layers; t++) put(t->w, 4, t->count);
    put(gradients, 4, n[2]), put(first, 4, n[2]), put(second, 4, n[2]);
    uint32_t *words = room(n[5] * 4);
    float *normals = room(n[5] * 4);
    double *pairs = room(n[5] * 4);
    int64_t *order = room(n[5] * 8);
    get(in, words, 4, n[5]);
    many_normals(words, normals, n[5] - 16);
    normal_pairs(words, pairs, n[5] / 4);
    permute(words, order, n[5]);
    put(normals, 4, n[5] - 16), put(pairs, 16, n[5] / 4), put(order, 8, n[5]);
    for (long g[13]; fread(g, 8, 13, in) == 13;) {
        long depth = g[3] * g[7] * g[8], places = g[0] * g[4] * g[5];
        float *x = numbers(in, g[0] * g[1] * g[2] * g[3]), *w = numbers(in, depth * g[6]);
        float *b = numbers(in, g[6]), *by_y = numbers(in, places * g[6]);
        float *y = room(4 * places * g[6]), *by_w = room(4 * depth * g[6]);
        failed += convolve(x, w, b, y, GEOMETRY_OF(g));
        failed += convolve_by_weight(x, by_y, by_w, GEOMETRY_OF(g));
        put(y, 4, places * g[6]), put(by_w, 4, depth * g[6]);
    }
    return failed;
}
"""


def layout(parts: Iterable[Tensor]) -> bytes:
    """Tensors like a model's parameters, layer by layer: weights (inputs, outputs), then biases."""
    return bits(*(part.detach().t() for part in parts))


@cache
def reference(name: str) -> tuple[bytes, bytes]:
    """The driver's input for 100 steps of a model and some draws, and the library's results."""
    model, latent = model_of(MODELS[name]), MODELS[name].latent_size
    hidden = MODELS[name].hidden_sizes
    encoder, decoder = (784, *hidden, 2 * latent), (latent, *hidden[::-1], 784)
    adam = exact.optim.Adam(model.parameters())
    generator = np.random.default_rng(0)
    images = (generator.random((IMAGES, 784)) < 0.13).astype(np.uint8)
    count = sum(value.numel() for value in model.parameters())
    head = [len(encoder) - 1, len(decoder) - 1, count, IMAGES, STEPS, WORDS]
    written = [np.array([*head, *encoder, *decoder], np.int64).tobytes()]
    written += [layout(model.parameters()), images.tobytes()]
    expected = []
    for _ in range(STEPS):
        rows = generator.permutation(IMAGES)
        noise = generator.standard_normal((IMAGES, latent), dtype=np.float32)
        written += [rows.tobytes(), noise.tobytes()]
        batch = torch.from_numpy(images[rows])
        adam.zero_grad()
        logits, kl = model(batch, torch.from_numpy(noise))
        loss, reconstruction = loss_function(logits, batch, kl)
        loss.backward()
        adam.step()
        expected.append(bits(reconstruction, kl))
    values = [*model.parameters()]
    expected += [layout(values), layout(value.grad for value in values)]
    for moment in ("exp_avg", "exp_avg_sq"):
        expected.append(layout(adam.state[value][moment] for value in values))
    words = generator.integers(0, 2**32, WORDS, np.uint32)
    normals, pairs = np.empty(WORDS - 16, np.float32), np.empty(WORDS // 4 * 2)
    order = np.empty(WORDS, np.int64)
    c, address = library.library(), words.ctypes.data
    c.many_normals(address, normals.ctypes.data, len(normals))
    c.normal_pairs(address, pairs.ctypes.data, WORDS // 4)
    c.permute(address, order.ctypes.data, WORDS)
    expected += [each.tobytes() for each in (normals, pairs, order)]
    return b"".join([*written, words.tobytes()]), b"".join(expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_keep_the_bits_of_the_c_network(name):
    assert tuple(hashlib.md5(part).hexdigest() for part in reference(name)) == HASHES[name]


@cache
def convolutions() -> tuple[bytes, bytes]:
    """The driver's input for some convolutions, and the library's results."""
    written, expected = b"", b""
    for images, channels, outputs, kernel, stride, padding in SHAPES:
        draw = Generator(0).normal
        x, w, b = draw(images, 9, 7, channels), draw(*kernel, channels, outputs), draw(outputs)
        leaf = w.permute(3, 2, 0, 1).requires_grad_()
        y = functional.conv2d(x.permute(0, 3, 1, 2), leaf, b, stride, padding).permute(0, 2, 3, 1)
        by_y = draw(*y.shape)
        (by_w,) = torch.autograd.grad(y, leaf, by_y)
        steps = [2 * (n,) if isinstance(n, int) else n for n in (stride, padding)]
        geometry = [images, 9, 7, channels, *y.shape[1:], *kernel, *steps[0]]
        geometry += [-p for p in steps[1]]
        written += bits(torch.tensor(geometry), x, w, b, by_y)
        expected += bits(y, by_w.permute(2, 3, 1, 0))
    return written, expected


ZIG = [sys.executable, "-m", "ziglang", "cc"]
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static") or ""
OWN = library.machine_flags()
AVX2, WIDE = [flag for flag in OWN if "512" not in flag], len(OWN) > 2
BUILDS = {
    "gcc AVX2": (["gcc", *AVX2], [], bool(OWN)),
    "gcc AVX-512": (["gcc", *OWN], [], WIDE),
    "clang AVX2": (["clang", *AVX2], [], bool(OWN)),
    "zig AVX2": ([*ZIG, *AVX2], [], bool(OWN)),
    "zig AVX-512": ([*ZIG, *OWN], [], WIDE),
    "clang AVX-512": (["clang", *OWN], [], WIDE),
    "gcc ARM": (["aarch64-linux-gnu-gcc", "-static"], [QEMU], bool(QEMU)),
    "zig ARM": ([*ZIG, "-target", "aarch64-linux-musl", "-static"], [QEMU], bool(QEMU)),
}


@pytest.mark.parametrize("build", BUILDS)
def test_every_compiler_and_processor_gives_the_same_bits(build, tmp_path):
    command, emulator, possible = BUILDS[build]
    if not possible or not shutil.which(command[0]):
        pytest.skip(f"this machine cannot build or run {build}")
    source, program, path = (tmp_path / name for name in ("driver.c", "driver", "input"))
    source.write_text(DRIVER)
    flags = [flag for flag in library.FLAGS if flag not in ("-shared", "-fPIC")]
    arguments = [*command, *flags, f"-I{ROOT}/src/exact", source, "-o", program, "-lm"]
    compiled = subprocess.run(arguments, stderr=subprocess.PIPE, text=True)
    assert compiled.returncode == 0, compiled.stderr
    geometries, convolved = convolutions()
    for name in MODELS:
        path.write_bytes(reference(name)[0] + geometries)
        found = subprocess.run([*emulator, program, path], check=True, capture_output=True).stdout
        assert found.endswith(convolved), f"{build}: convolutions"
        network = found.removesuffix(convolved)
        assert hashlib.md5(network).hexdigest() == HASHES[name][1], f"{build}: {name}"
