"""How the C library is found, compiled and run on this machine."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import exact
from conftest import ROOT
from exact import library
from vae import cli


def test_processes_that_compile_at_once_end_with_one_file(tmp_path):
    code = f"import sys; sys.prefix = {str(tmp_path)!r}; import exact; exact.set_threads(1)"
    environment, command = {**os.environ, "PYTHONPATH": ROOT / "src"}, [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0] * 3
    assert [path.suffix for path in (tmp_path / "lib").iterdir()] == [".so"]


@pytest.fixture
def nothing_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(library, "FLAGS", [flag for flag in library.FLAGS if flag != "-O3"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, text: str) -> Path:
    """Write a program, a script for sh, into `folder`."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_machine_without_a_compiler_gets_one_line(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(exact.BuildError, match=r"^.*run `make setup`.* there is no cc.*$"):
        library.compiled()


def test_the_locks_compiler_is_used_without_another(nothing_compiled, monkeypatch):
    monkeypatch.setenv("PATH", str(nothing_compiled))
    assert library.compilers() == [[sys.executable, "-m", "ziglang", "cc"]]
    assert library.compiled().parent == nothing_compiled / "prefix/lib"


# The last argument but one is the file to write.
WRONG = {
    "fails": "echo no headers >&2; exit 1",
    "writes nothing": "exit 0",
    "writes junk": 'for last; do before=$path; path=$last; done; echo junk > "$before"',
    "is killed": "kill -9 $$",
    "is no program": None,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_where_a_compiler_cannot_compile_the_next_one_does(nothing_compiled, monkeypatch, wrong):
    (nothing_compiled / "bin").mkdir()
    path = program(nothing_compiled / "bin", "cc", WRONG[wrong] or "")
    if WRONG[wrong] is None:
        path.write_bytes(b"\x7fELF for another machine")
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    assert library.compiled().parent == nothing_compiled / "prefix/lib"


def test_the_compiler_that_cc_names_comes_first_with_its_options(nothing_compiled, monkeypatch):
    log = nothing_compiled / "log"
    monkeypatch.setenv("CC", f"{program(nothing_compiled, 'mine', f'echo $1 > {log}; exit 1')} -m")
    library.compiled()
    assert log.read_text() == "-m\n"


def test_each_compilers_first_error_is_in_the_message(tmp_path):
    (tmp_path / "wrong.c").write_text("int f(void) { return x; }\n")
    failing = str(program(tmp_path, "mute", "exit 7"))
    with pytest.raises(exact.BuildError) as caught:
        sources, path = [tmp_path / "wrong.c"], tmp_path / "wrong.so"
        library.compile_library([[failing], ["cc"]], library.FLAGS, sources, path)
    assert re.search(r"mute: status 7; cc: .*error: .*undeclared", str(caught.value))


@pytest.mark.parametrize("damage", ["empty", "one byte"])
def test_a_damaged_library_is_made_again(nothing_compiled, damage):
    path = library.compiled()
    whole = path.read_bytes()
    path.unlink()  # this process has its code loaded
    path.write_bytes(whole[:9999] + b"?" + whole[10_000:] if damage == "one byte" else b"")
    assert library.compiled().read_bytes() == whole


def test_without_folder_name_and_home_a_library_is_made(nothing_compiled, monkeypatch):
    (nothing_compiled / "prefix").write_text("no folder")
    assert library.compiled().parent == nothing_compiled / ".cache"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert library.compiled().parent == nothing_compiled / f"exact-{os.getuid()}"


def test_another_users_folder_is_not_used(nothing_compiled, monkeypatch):
    (nothing_compiled / "prefix").write_text("no folder")
    (nothing_compiled / ".cache").mkdir()
    owner = os.getuid() + 1
    monkeypatch.setattr(library.os, "getuid", lambda: owner)
    (nothing_compiled / f"exact-{owner}").write_text("no folder")
    if not os.geteuid():  # root's folders are everybody's
        os.chown(nothing_compiled / ".cache", 12345, -1)
    with pytest.raises(exact.BuildError, match="cannot make the C library"):
        library.compiled()


def test_a_build_error_ends_a_script_in_one_line():
    main = Mock(side_effect=exact.BuildError("no C compiler"))
    with pytest.raises(SystemExit, match=r"^error: no C compiler$"):
        cli.run(main)


def test_a_processor_without_fused_multiply_add_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(library, "processor_features", lambda: {"sse2", "avx"})
    with pytest.raises(exact.BuildError, match="AVX2 and FMA"):
        library.machine_flags()


def product() -> torch.Tensor:
    """A product by two threads, for which it is large enough."""
    exact.set_threads(2)
    weight = torch.linspace(-1, 1, 400 * 784).view(400, 784)
    return exact.functional.linear(torch.linspace(0, 1, 128 * 784).view(128, 784), weight)


def test_a_forked_process_computes_the_same(restored_modes):
    expected = product()
    child = os.fork()
    if not child:
        os._exit(not torch.equal(product(), expected))
    assert os.waitpid(child, 0)[1] == 0


def test_idle_threads_use_no_processor(restored_modes):
    product()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


@pytest.mark.parametrize("asked, expected", [("1", 1), ("1,2", 1), ("0", None), ("many", None)])
def test_omp_num_threads_limits_the_threads(asked, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = library.default_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert library.default_threads() == (expected or most)


V1 = {"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1),
        # In a container of version 1, which has its own group at the top.
        ("4:memory:/x\n3:cpu,cpuacct:/docker/ab", {**V1, "cpu/cpu.cfs_quota_us": "300000"}, 3),
        ("2:cpuset:/a\n1:cpu:/b", {"cpu/a/cpu.cfs_quota_us": "1", **V1}, 16),
        ("damaged", {}, 16),
    ],
)
def test_a_quota_of_processor_time_limits_the_threads(tmp_path, groups, files, expected):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert library._cpu_quota(tmp_path) == expected
