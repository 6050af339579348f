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
    "linears": [P, L, L, L, P, L, P, P],
    "linears_backward": [P, L, L, L, P, L, P, P, P, P],
    "bernoulli_nll_backward": [P, P, P, L, L],
    "convolve": [P, P, P, P, *[L] * 13],
    "convolve_by_weight": [P, P, P, *[L] * 13],
}
FUNCTIONS = {
    "bernoulli_nll": [P, P, P, P, L, L, L],
    "gaussian": [P, P, P, P, L, L],
    "gaussian_backward": [P, P, P, P, P, L, L],
    "sigmoid": [P, P, L],
    "exponentials": [P, L],
    "logarithms": [P, L],
    "sum_over_rows": [P, P, L, L],
    "adam": [P, L, D, D, D, D],
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
        if name in CHECKED:
            function.restype, function.errcheck = ctypes.c_int, _check
    loaded.set_threads(default_threads())
    return loaded


def _check(status: int, function: object, arguments: tuple) -> int:
    """Return the status of a function of `CHECKED`, or raise the error that it stands for."""
    if status == 1:
        raise MemoryError("not enough memory for a product of matrices")
    if status == 2:
        raise ValueError("an input of uint8 should hold zeros and ones only")
    return status


def default_threads() -> int:
    """Return the number of processors this process may use, at most OMP_NUM_THREADS."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        available = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    asked = int(wanted) if wanted.isdigit() and int(wanted) else available
    return min(available, asked, _cpu_quota(Path("/")), MOST_THREADS)


def _cpu_quota(root: Path) -> int:
    """Return the CPU quota of this process's control groups, in processors, rounded up."""
    quotas = [MOST_THREADS]
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            # Controllers are named in version 1 alone, where each may have folders of its own.
            if controllers and "cpu" not in controllers.split(","):
                continue
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            place = root / "sys/fs/cgroup" / ("cpu" if controllers else "") / group.lstrip("/")
            # The groups above limit it as well; a container may see its own as the top.
            for folder in (place, *place.parents):
                with suppress(OSError, ValueError):  # no such file, or "max"
                    words = " ".join((folder / file).read_text() for file in files).split()
                    quota, period = map(int, words)
                    if quota > 0:
                        quotas.append(-(-quota // period))
    return min(quotas)


def set_threads(threads: int) -> None:
    """Set the number of threads; no result depends on it."""
    library().set_threads(threads)


def compiled() -> Path:
    """Return the library's file, compiled from *.c unless a folder has it, undamaged.

    Raises BuildError as `library`.
    """
    folder = Path(__file__).parent
    sources, headers = sorted(folder.glob("[!.]*.c")), sorted(folder.glob("[!.]*.h"))
    flags = [*FLAGS, *machine_flags()]
    texts = [*flags, sys.platform, *(file.read_text() for file in sources + headers)]
    name = f"exact-{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:16]}"
    for folder in filter(_is_ours, _folders()):
        for path in folder.glob(f"{name}-*.so"):
            with suppress(OSError):
                if path.name == _named(name, path):
                    return path
    problems = []
    for folder in filter(_is_ours, _folders()):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                path = Path(scratch, f"{name}.so")
                compile_library(compilers(), flags, sources, path)
                return path.rename(folder / _named(name, path))
        except (OSError, BuildError) as error:
            problems.append(str(error))
    raise BuildError(f"cannot make the C library: {'; '.join(dict.fromkeys(problems))}")


def _named(name: str, path: Path) -> str:
    """Return a library's name with the hash of its content, which reveals damage."""
    return f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def compilers() -> list[list[str]]:
    """List the commands of C compilers: of CC, the system and the ziglang package."""
    found = [os.environ.get("CC", "").split(), *([name] for name in ("cc", "gcc", "clang"))]
    found = [command for command in found if command and shutil.which(command[0])]
    return found + ([[sys.executable, "-m", "ziglang", "cc"]] if find_spec("ziglang") else [])


def compile_library(
    commands: list[list[str]], flags: list[str], sources: list[Path], path: Path
) -> None:
    """Compile `sources` into the shared library `path` with the first compiler that can.

    Raises BuildError with the first error of each.
    """
    errors = []
    for command in commands:
        try:
            arguments = [*command, *flags, *sources, "-o", path, "-lm"]
            result = subprocess.run(arguments, capture_output=True, text=True, errors="replace")
            if not result.returncode:
                ctypes.CDLL(str(path))  # whatever it wrote
                return
            lines = result.stderr.strip().splitlines() or [f"status {result.returncode}"]
        except OSError as error:
            lines = [str(error)]
        first = next((line for line in lines if "error:" in line), lines[-1])
        errors.append(f"{' '.join(command)}: {first}")
    raise BuildError(
        f"no C compiler here can compile {sources[0].parent}/*.c: run `make setup`, or install gcc "
        f"or ziglang: {'; '.join(errors) or 'there is no cc, gcc or clang'}"
    )


def machine_flags() -> list[str]:
    """Return the compiler's flags for this processor. Raises BuildError if it lacks FMA."""
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
    """Return the names of an x86-64 processor's features, as Linux or macOS gives them."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        names = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        return set(subprocess.run(names, capture_output=True, text=True).stdout.lower().split())


def _folders() -> list[Path]:
    """List the folders for the compiled library, the best first."""
    folders = [Path(sys.prefix, "lib"), Path(tempfile.gettempdir(), f"exact-{os.getuid()}")]
    with suppress(RuntimeError):  # a user without a home
        folders.insert(1, Path.home() / ".cache")
    return folders


def _is_ours(folder: Path) -> bool:
    """Say whether a folder is safe to load code from: not another user's."""
    try:
        return folder.stat().st_uid in (0, os.getuid())
    except OSError:  # not there, or not to be read
        return True
