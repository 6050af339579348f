"""The C library of this package, compiled once for a machine: why its bits are the same everywhere.

A float32 sum depends on the order of its terms, and a library chooses that order by the processor's
vector width, the number of threads and the size of the matrix; its exp and log differ by processor
too. In exact.c the numbers alone decide:

- each element of a product is one chain of fused multiply-adds, in the order of the inner index.
  Lanes, tiles and threads share out the elements among them, never a chain. Where a factor is a
  pixel that is 0, the addition of 0 is left out;
- any other sum is taken in an order that is written down: over an image's pixels in 16 interleaved
  parts, over latents and images one by one;
- everything else is + - * / sqrt or a fused multiply-add, which IEEE 754 rounds alike everywhere.
  exp and log are polynomials made of these; no function of a mathematics library enters a value;
- the compiler may neither reorder nor fuse what is written (no -ffast-math, -ffp-contract=off);
- the processor's mode is the standard's while the library runs: subnormal numbers stay.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vae.cli import UserError

FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-fPIC", "-shared", "-pthread"]
MOST_THREADS = 16


@cache
def library() -> ctypes.CDLL:
    """Load the library, compiled at its first use, with the threads of `default_threads`.

    Raises UserError when the processor is unfit, and when nothing here can compile.
    """
    loaded = ctypes.CDLL(str(compiled()))
    loaded.make_net.restype = ctypes.c_void_p
    loaded.set_threads(default_threads())
    return loaded


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the library: arrays go there by their address, a whole number as a C long,
    any other as a double. Returns what `make_net` gives."""
    return getattr(library(), name)(*map(_in_c, arguments))


def _in_c(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, int):
        return ctypes.c_long(value)
    return ctypes.c_double(value) if isinstance(value, float) else value


def expect(dtype: type, shape: tuple[int, ...], *arrays: np.ndarray) -> None:
    """Raise ValueError unless the arrays have this type and shape, row by row."""
    for array in arrays:
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(
                f"expected C-contiguous {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
            )


def default_threads() -> int:
    """The processors that this process may use, or fewer where OMP_NUM_THREADS says so."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        available = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    asked = int(wanted) if wanted.isdigit() and int(wanted) else available
    return min(available, asked, MOST_THREADS)


def set_threads(threads: int) -> None:
    """Use so many threads from now on; no result depends on it."""
    call("set_threads", threads)


def compiled() -> Path:
    """The library's file; compiled from exact/*.c where no folder has one of these sources.

    Raises UserError as `library`.
    """
    folder = Path(__file__).with_name("exact")
    sources, headers = sorted(folder.glob("*.c")), sorted(folder.glob("*.h"))
    flags = [*FLAGS, *machine_flags()]
    texts = [*flags, sys.platform, *(file.read_text() for file in sources + headers)]
    name = f"vae-kernel-{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:16]}.so"
    for folder in _folders():
        if (folder / name).exists():
            return folder / name
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                compile_library(compiler(), flags, sources, Path(scratch, name))
                return Path(scratch, name).rename(folder / name)
    raise UserError(
        f"cannot write to any of {', '.join(map(str, _folders()))}: let this user write to one"
    )


def compiler() -> list[str]:
    """The command of a C compiler: the system's, else the ziglang package's. Raises UserError."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise UserError("no C compiler (cc, gcc, clang or the ziglang package): run `make setup`")


def compile_library(command: list[str], flags: list[str], sources: list[Path], path: Path) -> None:
    """Compile `sources` into the shared library `path`. Raises UserError with the first error."""
    arguments = [*command, *flags, *sources, "-o", path, "-lm"]
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        first = next((line for line in lines if "error:" in line), " ".join(lines[-1:]))
        raise UserError(f"{' '.join(command)} cannot compile {sources[0].parent}/*.c: {first}")


def machine_flags() -> list[str]:
    """What to compile for. Raises UserError when the processor has no fused multiply-add."""
    machine = platform.machine()
    if machine in ("arm64", "aarch64"):
        return []
    found = processor_features()
    if machine not in ("x86_64", "AMD64") or not {"fma", "avx2"} <= found:
        raise UserError(
            "this processor cannot run it: an x86-64 one with AVX2 and FMA (Intel since 2013, AMD "
            "since 2015) or a 64-bit ARM one is needed"
        )
    # By name: gcc's and zig's words for a generation of processors differ.
    wide = ["avx512f", "avx512bw", "avx512dq", "avx512vl"]
    return [f"-m{name}" for name in ["avx2", "fma", *(wide if {*wide} <= found else [])]]


def processor_features() -> set[str]:
    """The names of what an x86-64 processor can do, as Linux or macOS gives them."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        names = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        return set(subprocess.run(names, capture_output=True, text=True).stdout.lower().split())


def processor() -> str:
    """The processor's name and model, as the system gives them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def _folders() -> list[Path]:
    """Where the built library may lie, the best first."""
    user = f"vae-kernel-{os.getuid()}"
    return [Path(sys.prefix, "lib"), Path.home() / ".cache", Path(tempfile.gettempdir(), user)]
