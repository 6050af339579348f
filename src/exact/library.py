"""The C library of this package: compiled once for a machine, its functions declared with types."""

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

FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-fPIC", "-shared", "-pthread"]
MOST_THREADS = 16


# Pointers, whole numbers and real numbers, as each function of exact.c and draws.c takes them.
P, L, D = ctypes.c_void_p, ctypes.c_long, ctypes.c_double
UNCHANGED = 3
CHECKED = {
    "linear": [P, P, P, P, L, L, L, L],
    "linear_backward": [P, P, P, P, P, P, P, L, L, L],
    "linear_of_bytes": [P, P, P, P, L, L, L, L],
    "linear_of_bytes_backward": [P, P, P, P, P, L, L, L],
    "bernoulli_nll_backward": [P, P, P, L, L],
}
FUNCTIONS = {
    "bernoulli_nll": [P, P, P, P, L, L, L],
    "gaussian": [P, P, P, P, L, L],
    "gaussian_backward": [P, P, P, P, P, L, L],
    "sigmoid": [P, P, L],
    "exponentials": [P, L],
    "logarithms": [P, L],
    "sum_over_rows": [P, P, L, L],
    "adam": [P, L, L, D, D, D, D],
    "many_normals": [P, P, L],
    "normal_pairs": [P, P, L],
    "permute": [P, P, L],
    "set_threads": [L],
}


class BuildError(RuntimeError):
    """The library cannot be compiled or run on this machine; the message says what to do."""


@cache
def library() -> ctypes.CDLL:
    """Load the library, compiled at its first use, with the threads of `default_threads`.

    Raises BuildError when the processor is unfit, and when nothing here can compile.
    """
    loaded = ctypes.CDLL(str(compiled()))
    for name, types in (FUNCTIONS | CHECKED).items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = types, None
    for name in CHECKED:
        function = getattr(loaded, name)
        function.restype, function.errcheck = ctypes.c_int, _check
    loaded.set_threads(default_threads())
    return loaded


def _check(status: int, function: object, arguments: tuple) -> int:
    """Raise what a function of `CHECKED` says by its status, or return it."""
    if status == 1:
        raise MemoryError("not enough memory for a product of matrices")
    if status == 2:
        raise ValueError("an input of uint8 should hold zeros and ones only")
    return status


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
    library().set_threads(threads)


def compiled() -> Path:
    """The library's file; compiled from *.c where no folder has one of these sources.

    Raises BuildError as `library`.
    """
    folder = Path(__file__).parent
    sources, headers = sorted(folder.glob("[!.]*.c")), sorted(folder.glob("[!.]*.h"))
    flags = [*FLAGS, *machine_flags()]
    texts = [*flags, sys.platform, *(file.read_text() for file in sources + headers)]
    name = f"exact-{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:16]}.so"
    for folder in _folders():
        if (folder / name).exists():
            return folder / name
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                compile_library(compiler(), flags, sources, Path(scratch, name))
                return Path(scratch, name).rename(folder / name)
    raise BuildError(
        f"cannot write to any of {', '.join(map(str, _folders()))}: let this user write to one"
    )


def compiler() -> list[str]:
    """The command of a C compiler: the system's, else the ziglang package's. Raises BuildError."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BuildError("no C compiler (cc, gcc, clang or the ziglang package): run `make setup`")


def compile_library(command: list[str], flags: list[str], sources: list[Path], path: Path) -> None:
    """Compile `sources` into the shared library `path`. Raises BuildError with the first error."""
    arguments = [*command, *flags, *sources, "-o", path, "-lm"]
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        first = next((line for line in lines if "error:" in line), " ".join(lines[-1:]))
        raise BuildError(f"{' '.join(command)} cannot compile {sources[0].parent}/*.c: {first}")


def machine_flags() -> list[str]:
    """What to compile for. Raises BuildError when the processor has no fused multiply-add."""
    machine = platform.machine()
    if machine in ("arm64", "aarch64"):
        return []
    found = processor_features()
    if machine not in ("x86_64", "AMD64") or not {"fma", "avx2"} <= found:
        raise BuildError(
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
    user = f"exact-{os.getuid()}"
    return [Path(sys.prefix, "lib"), Path.home() / ".cache", Path(tempfile.gettempdir(), user)]
