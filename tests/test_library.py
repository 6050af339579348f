"""How the C library is found, compiled and run on this machine."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch

import exact
from conftest import ROOT, model_of
from exact import library
from vae.objective import loss_function
from vae.params import Architecture

ZIG = [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else [""]


def test_processes_that_compile_at_once_end_with_one_file(tmp_path):
    code = (
        f"import sys; sys.prefix = {str(tmp_path)!r}; from exact.library import library; library()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0] * 3
    assert [path.suffix for path in (tmp_path / "lib").iterdir()] == [".so"]


@pytest.fixture
def nothing_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_machine_without_a_compiler_gets_one_line(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(exact.BuildError, match=r"no C compiler .* run `make setup`"):
        library.compiled()


def test_the_compiler_of_the_lock_serves_where_the_system_has_none(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    assert library.compiler() == ZIG
    assert library.compiled().parent == nothing_compiled / "prefix/lib"


def test_a_read_only_environment_is_no_obstacle(nothing_compiled):
    (nothing_compiled / "prefix").write_text("no folder")
    assert library.compiled().parent == nothing_compiled / ".cache"


def test_a_compilers_error_is_one_line(tmp_path):
    (tmp_path / "wrong.c").write_text("int f(void) { return x; }\n")
    with pytest.raises(exact.BuildError, match=r"cannot compile .*error: .*undeclared"):
        library.compile_library(
            library.compiler(), [*library.FLAGS], [tmp_path / "wrong.c"], tmp_path / "wrong.so"
        )


def test_a_processor_without_fused_multiply_add_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(library, "processor_features", lambda: {"sse2", "avx"})
    with pytest.raises(exact.BuildError, match="AVX2 and FMA"):
        library.machine_flags()


def steps() -> bytes:
    """The values after a step of the 2-d model."""
    model = model_of(Architecture(hidden_sizes=(400, 150), latent_size=2))
    images = torch.eye(128, 784, dtype=torch.uint8)
    logits, kl = model(images, torch.zeros(128, 2))
    loss_function(logits, images, kl)[0].backward()
    exact.optim.Adam(model.parameters()).step()
    return b"".join(value.detach().numpy().tobytes() for value in model.parameters())


def test_a_forked_process_computes_the_same():
    exact.set_threads(2)
    expected = steps()
    child = os.fork()
    if not child:
        os._exit(steps() != expected)
    exact.set_threads(library.default_threads())
    assert os.waitpid(child, 0)[1] == 0


def test_idle_threads_use_no_processor():
    exact.set_threads(2)
    steps()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    exact.set_threads(library.default_threads())
    assert time.process_time() - before < 0.05


@pytest.mark.parametrize("asked, expected", [("1", 1), ("1,2", 1), ("0", None), ("many", None)])
def test_omp_num_threads_limits_the_threads(asked, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = library.default_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert library.default_threads() == (expected or most)
