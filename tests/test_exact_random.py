"""Our draws against torch's own, and against themselves on other processors."""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from conftest import ROOT, bits
from exact.random import Generator

# What torch draws elsewhere has other bits; the hashes below are of these.
torch_has_avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch draws its own way on this processor",
)
# Blocks of sixteen, overlapping blocks, fewer than sixteen with and without a number left over.
SIZES = [2560, 20, 40, 1, 15, 16, 17, 2, 3, 100_003, 7, 100]
HASHES = {
    "normals": "1df2d33878792d7a2874ab0977de5279",
    "uniforms": "1093e8133898a87542bc3a9e936dc92f",
}


def generators(seed: int = 199) -> tuple[Generator, torch.Generator]:
    return Generator(seed), torch.Generator().manual_seed(seed)


def same(ours: torch.Tensor, torchs: torch.Tensor) -> bool:
    """Whether shapes and bits are the same; 0 is not -0."""
    return ours.shape == torchs.shape and bits(ours) == bits(torchs)


def drawn_in_turn(generator: Generator, sizes: Sequence[int]) -> list[torch.Tensor]:
    tensors = [torch.empty(size) for size in sizes]
    generator.fill_normal(tensors)
    return tensors


def hashes() -> dict[str, str]:
    """MD5 of draws of these sizes."""
    generator = Generator(199)
    normals = torch.cat(drawn_in_turn(generator, SIZES))
    drawn = {"normals": normals, "uniforms": generator.uniform(1 / math.sqrt(784), 100_003)}
    return {name: hashlib.md5(value.numpy()).hexdigest() for name, value in drawn.items()}


@torch_has_avx2
def test_normals_of_every_size_are_torchs_one_after_another():
    """The number left over from a pair included, which an odd count leaves for the next."""
    ours, torchs = generators()
    sizes = [0, *range(1, 101), 256, 1000, 2560, 3, 20, 5, 5_000_000]
    for size, drawn in zip(sizes, drawn_in_turn(ours, sizes), strict=True):
        assert same(drawn, torch.randn(size, generator=torchs)), size


def test_a_million_normals_drawn_few_at_a_time_are_torchs():
    """The C library's log, sin and cos are not ours, but the float32 made of them is."""
    ours, torchs = generators()
    drawn = torch.cat(drawn_in_turn(ours, [10] * 100_000))
    # torch draws one by one into what is not contiguous, whatever its size.
    assert same(drawn, torch.empty(1_000_000, 2)[:, 0].normal_(generator=torchs))


@torch_has_avx2
@pytest.mark.parametrize("bound", [1 / 28, 0.05, 1.0, 3.0])
def test_uniforms_are_torchs(bound):
    ours, torchs = generators()
    expected = torch.empty(1_000_003).uniform_(-bound, bound, generator=torchs)
    assert same(ours.uniform(bound, 1_000_003), expected)


@pytest.mark.parametrize("seed", [0, 199, 2**32 - 1, 2**32 + 5, 2**63])
def test_any_seed_gives_torchs_integers_and_permutations(seed):
    ours, torchs = generators(seed)
    for count in (0, 1, 2, 1000, 60_000):
        raw = torch.empty((), dtype=torch.int64).random_(generator=torchs)
        assert ours.integer() == raw
        assert same(ours.permutation(count), torch.randperm(count, generator=torchs))


def test_initial_bounds_are_those_of_kaiming_uniform():
    """torch takes a longer way to 1 / sqrt(inputs); in float32 it ends at the same number."""
    gain = nn.init.calculate_gain("leaky_relu", math.sqrt(5))
    for inputs in range(1, 10_000):
        torchs, ours = math.sqrt(3) * (gain / math.sqrt(inputs)), 1 / math.sqrt(inputs)
        assert np.float32(torchs) == np.float32(ours)


def test_torch_draws_the_same_after_each_of_our_draws():
    ours, torchs = generators()
    for size in (1, 3, 14, 16, 17, 100, 20, 2560, 1000):
        ours.normal(size, 2)
        torch.randn(size, 2, generator=torchs)
        assert ours.integer() == torch.empty((), dtype=torch.int64).random_(generator=torchs)
        ours.uniform(1.0, size)
        torch.empty(size).uniform_(-1, 1, generator=torchs)
        assert ours.integer() == torch.empty((), dtype=torch.int64).random_(generator=torchs)


@pytest.mark.parametrize("drawn", [0, 3, 4, 700])
def test_draws_go_on_from_a_kept_state(drawn):
    """After three normals a fourth waits, which the state holds."""
    first, second = Generator(199), Generator(0)
    first.normal(drawn)
    second.set_state(first.get_state())
    assert same(first.normal(5), second.normal(5))
    assert first.integer() == second.integer()


def test_what_is_no_contiguous_float32_is_refused_before_a_draw():
    ours, untouched = Generator(199), Generator(199)
    for tensor in (torch.empty(4, 2)[:, 0], torch.empty(4).double()):
        with pytest.raises(ValueError, match="contiguous float32"):
            ours.fill_normal([torch.empty(3), tensor])
    assert torch.equal(ours.get_state(), untouched.get_state())


def test_the_bits_are_these_with_and_without_avx2():
    assert hashes() == HASHES
    program = (
        "import test_exact_random, torch;"
        "print(torch.backends.cpu.get_cpu_capability(), test_exact_random.hashes())"
    )
    environment = os.environ | {
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout == f"DEFAULT {HASHES}\n", result.stderr
