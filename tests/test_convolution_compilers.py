"""The bits of convolutions under every compiler, and on ARM."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from exact import functional
from exact.random import Generator
from test_compilers import BUILDS, built
from test_exact_convolution import SHAPES, bits

# Reads a geometry, images, a weight, a bias and the output's gradient; writes what C makes of them.
DRIVER = """
#include "exact.c"
#include <stdio.h>
static float *numbers(FILE *in, long count) {
    float *to = calloc(count + 128, 4);
    if (fread(to, 4, count, in) < (size_t)count) exit(1);
    return to;
}
int main(int arguments, char **argument) {
    FILE *in = fopen(argument[1], "rb");
    long g[13];
    set_threads(2);
    while (arguments == 2 && fread(g, 8, 13, in) == 13) {
        long depth = g[3] * g[7] * g[8], places = g[0] * g[4] * g[5];
        float *x = numbers(in, g[0] * g[1] * g[2] * g[3]), *w = numbers(in, depth * g[6]);
        float *b = numbers(in, g[6]), *by_y = numbers(in, places * g[6]);
        float *y = calloc(places * g[6] + 128, 4), *by_w = calloc(depth * g[6] + 128, 4);
        convolve(x, w, b, y, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10],
                 g[11], g[12]);
        convolve_by_weight(x, by_y, by_w, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8],
                           g[9], g[10], g[11], g[12]);
        fwrite(y, 4, places * g[6], stdout);
        fwrite(by_w, 4, depth * g[6], stdout);
    }
    return 0;
}
"""


def reference(path: Path) -> bytes:
    """Write the driver's input for some convolutions to `path`; return what the library gives."""
    written, expected = [], []
    for images, channels, outputs, kernel, stride, padding in SHAPES:
        draw = Generator(0).normal
        steps = [2 * [n] if isinstance(n, int) else [*n] for n in (stride, padding)]
        pairs = zip((9, 7), kernel, *steps, strict=True)
        size = [(length + 2 * p - k) // s + 1 for length, k, s, p in pairs]
        geometry = [images, 9, 7, channels, *size, outputs, *kernel, *steps[0]]
        geometry += [-p for p in steps[1]]
        x, w = draw(images, 9, 7, channels), draw(*kernel, channels, outputs)
        b, by_y = draw(outputs), draw(images, *size, outputs)
        leaves = [x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1).requires_grad_()]
        y = functional.conv2d(*leaves, b, *map(tuple, steps))
        (by_w,) = torch.autograd.grad(y, leaves[1:], by_y.permute(0, 3, 1, 2))
        written += [np.array(geometry, np.int64), x.numpy(), w.numpy(), b.numpy(), by_y.numpy()]
        expected += [y.detach().permute(0, 2, 3, 1), by_w.permute(2, 3, 1, 0)]
    path.write_bytes(b"".join(array.tobytes() for array in written))
    return b"".join(bits(expected))


@pytest.mark.parametrize("build", BUILDS)
def test_every_compiler_and_processor_gives_the_same_bits(build, tmp_path):
    command, expected = built(build, DRIVER, tmp_path), reference(tmp_path / "input")
    run = subprocess.run([*command, tmp_path / "input"], check=True, capture_output=True)
    assert run.stdout == expected
