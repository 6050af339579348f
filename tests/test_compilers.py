"""The exact library: how it is compiled, and its bits under every compiler and on ARM."""

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, network_of
from vae import kernel
from vae.cli import UserError
from vae.network import Trainer
from vae.params import Architecture, check_params

MODELS = {
    "20d": Architecture(hidden_sizes=(400,), latent_size=20),
    "2d": Architecture(hidden_sizes=(400, 150), latent_size=2),
}
SETTINGS = check_params(ROOT / "params.yaml").train
STEPS, IMAGES, WORDS = 100, 24, 100_019
EXACT = ROOT / "src/vae/exact"
# Reads sizes, values, images, rows, noise and words; writes what `reference` gives.
DRIVER = """
#include "exact.c"
#include "draws.c"
#include <stdio.h>
int main(int arguments, char **argument) {
    FILE *in = fopen(argument[1], "rb");
    long n[6], done = arguments;  // encoder's and decoder's layers, values, images, steps, words
    done += fread(n, 8, 6, in);
    int64_t sizes[64];
    done += fread(sizes, 8, n[0] + n[1] + 2, in);
    long latent = sizes[n[0] + 1];
    float *values = calloc(4 * n[2] + 128, 4);
    uint8_t *images = malloc(n[3] * sizes[0]);
    int64_t *rows = malloc(n[3] * 8);
    float *noise = malloc(n[3] * latent * 4);
    double *terms = malloc(n[3] * 16);
    done += fread(values, 4, n[2], in) + fread(images, 1, n[3] * sizes[0], in);
    set_threads(2);
    Net *net = make_net(sizes, n[0], n[1], n[3], values, values + n[2]);
    for (long step = 1; step <= n[4]; step++) {
        done += fread(rows, 8, n[3], in) + fread(noise, 4, n[3] * latent, in);
        gradient(net, images, rows, n[3], noise, 1, terms);
        adam(values, values + n[2], values + 2 * n[2], values + 3 * n[2], n[2], step,
             1e-3, .9, .999, 1e-8);
        fwrite(terms, 8, 2 * n[3], stdout);
    }
    fwrite(values, 4, 4 * n[2], stdout);
    uint32_t *words = malloc(n[5] * 4);
    float *normals = malloc(n[5] * 4);
    double *pairs = malloc(n[5] * 4);
    int64_t *order = malloc(n[5] * 8);
    done += fread(words, 4, n[5], in);
    many_normals(words, normals, n[5] - 16);
    normal_pairs(words, pairs, n[5] / 4);
    permute(words, order, n[5]);
    fwrite(normals, 4, n[5] - 16, stdout);
    fwrite(pairs, 16, n[5] / 4, stdout);
    fwrite(order, 8, n[5], stdout);
    return done < 0;
}
"""


def reference(name: str, folder: Path) -> tuple[Path, bytes]:
    """The driver's input for 100 steps of a model and some draws, and what the library makes of
    it."""
    network = network_of(MODELS[name])
    trainer = Trainer(network, IMAGES, SETTINGS)
    encoder, decoder = network.sizes
    generator = np.random.default_rng(0)
    images = (generator.random((IMAGES, 784)) < 0.13).astype(np.uint8)
    head = [len(encoder) - 1, len(decoder) - 1, network.values.size, IMAGES, STEPS, WORDS]
    written = [np.array([*head, *encoder, *decoder], np.int64), network.values.copy(), images]
    expected = []
    for _ in range(STEPS):
        rows = generator.permutation(IMAGES)
        noise = generator.standard_normal((IMAGES, network.latent), dtype=np.float32)
        written += [rows, noise]
        expected.append(trainer.step(images, rows, noise))
    expected += [network.values, trainer.gradients, trainer.first, trainer.second]
    words = generator.integers(0, 2**32, WORDS, np.uint32)
    written.append(words)
    normals, pairs = np.empty(WORDS - 16, np.float32), np.empty(WORDS // 4 * 2)
    order = np.empty(WORDS, np.int64)
    kernel.call("many_normals", words, normals, len(normals))
    kernel.call("normal_pairs", words, pairs, WORDS // 4)
    kernel.call("permute", words, order, WORDS)
    expected += [normals, pairs, order]
    path = folder / name
    path.write_bytes(b"".join(array.tobytes() for array in written))
    return path, b"".join(array.tobytes() for array in expected)


ZIG = [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else [""]
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static") or ""
OWN = kernel.machine_flags()
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
    (tmp_path / "driver.c").write_text(DRIVER)
    flags = [flag for flag in kernel.FLAGS if flag not in ("-shared", "-fPIC")]
    program = tmp_path / "driver"
    built = [*command, *flags, f"-I{EXACT}", tmp_path / "driver.c", "-o", program, "-lm"]
    compiled = subprocess.run(built, stderr=subprocess.PIPE, text=True)
    assert compiled.returncode == 0, compiled.stderr
    for name in MODELS:
        path, expected = reference(name, tmp_path)
        run = subprocess.run([*emulator, program, path], check=True, capture_output=True)
        assert run.stdout == expected, f"{build}: {name}"


def test_processes_that_compile_at_once_end_with_one_file(tmp_path):
    code = f"import sys; sys.prefix = {str(tmp_path)!r}; from vae.kernel import library; library()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code + "; print('torch' in sys.modules)"]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["False\n"] * 3
    assert [path.suffix for path in (tmp_path / "lib").iterdir()] == [".so"]


@pytest.fixture
def nothing_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_machine_without_a_compiler_gets_one_line(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    monkeypatch.setattr(kernel, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"no C compiler .* run `make setup`"):
        kernel.compiled()


def test_the_compiler_of_the_lock_serves_where_the_system_has_none(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    assert kernel.compiler() == ZIG
    assert kernel.compiled().parent == nothing_compiled / "prefix/lib"


def test_a_read_only_environment_is_no_obstacle(nothing_compiled):
    (nothing_compiled / "prefix").write_text("no folder")
    assert kernel.compiled().parent == nothing_compiled / ".cache"


def test_a_compilers_error_is_one_line(tmp_path):
    (tmp_path / "wrong.c").write_text("int f(void) { return x; }\n")
    with pytest.raises(UserError, match=r"cannot compile .*error: .*undeclared"):
        kernel.compile_library(
            kernel.compiler(), [*kernel.FLAGS], [tmp_path / "wrong.c"], tmp_path / "wrong.so"
        )


def test_a_processor_without_fused_multiply_add_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(kernel, "processor_features", lambda: {"sse2", "avx"})
    with pytest.raises(UserError, match="AVX2 and FMA"):
        kernel.machine_flags()


def steps(count: int = 1) -> bytes:
    """The values after some steps of the 2-d model."""
    network = network_of(MODELS["2d"])
    images = np.eye(128, 784, dtype=np.uint8)
    trainer = Trainer(network, 128, SETTINGS)
    for _ in range(count):
        trainer.step(images, np.arange(128), np.zeros((128, 2), np.float32))
    return network.values.tobytes()


def test_a_forked_process_computes_the_same():
    kernel.set_threads(2)
    expected = steps()
    child = os.fork()
    if not child:
        os._exit(steps() != expected)
    kernel.set_threads(kernel.default_threads())
    assert os.waitpid(child, 0)[1] == 0


def test_idle_threads_use_no_processor():
    kernel.set_threads(2)
    steps()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    kernel.set_threads(kernel.default_threads())
    assert time.process_time() - before < 0.05


@pytest.mark.parametrize("asked, expected", [("1", 1), ("1,2", 1), ("0", None), ("many", None)])
def test_omp_num_threads_limits_the_threads(asked, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = kernel.default_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert kernel.default_threads() == (expected or most)
