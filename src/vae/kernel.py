"""The C library of this package, compiled once for a machine: why its bits are the same everywhere.

A float32 sum depends on the order of its terms, and a library chooses that order by the processor's
vector width, the number of threads and the size of the matrix; its exp and log differ by processor
too. In exact.c the numbers alone decide:

- each element of a product is one chain of fused multiply-adds, in the order of the inner index.
Lanes, tiles and threads share out the elements among them, never a chain. Where a factor is a pixel
that is 0, the addition of 0 is left out; - any other sum is taken in an order that is written down:
over an image's pixels in 16 interleaved parts, over latents and images one by one; - everything
else is + - * / sqrt or a fused multiply-add, which IEEE 754 rounds alike everywhere. exp and log
are polynomials made of these; no function of a mathematics library enters a value; - the compiler
may neither reorder nor fuse what is written (no -ffast-math, -ffp-contract=off); - the processor's
mode is the standard's while the library runs, whatever it was: subnormal numbers stay.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from vae.cli import UserError

FLAGS = (
    "-O3",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
    "-pthread",
)


def library() -> ctypes.CDLL:
    """The compiled *.c files beside this module; compiled now, once for a machine and version of
    them.

    Raises UserError when the processor is unfit, and when nothing here can compile.
    """
    folder = Path(__file__).with_name("exact")
    sources, headers = sorted(folder.glob("*.c")), sorted(folder.glob("*.h"))
    flags = (*FLAGS, *_architecture())
    key = hashlib.sha256(
        "\n".join(
            (*flags, sys.platform, *(file.read_text() for file in sources + headers))
        ).encode()
    )
    name = f"vae-kernel-{key.hexdigest()[:16]}.so"
    for folder in _folders():
        if (folder / name).exists():
            return ctypes.CDLL(str(folder / name))
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                compile_library(compiler(), flags, sources, Path(scratch, name))
                Path(scratch, name).rename(folder / name)
            return ctypes.CDLL(str(folder / name))
        except OSError:
            continue
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


def compile_library(
    command: list[str], flags: tuple[str, ...], sources: list[Path], path: Path
) -> None:
    """Compile `sources` into the shared library `path`. Raises UserError with the compiler's first
    error."""
    result = subprocess.run(
        [*command, *flags, *sources, "-o", path, "-lm"], capture_output=True, text=True
    )
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if "error" in line] or [
            result.stderr.strip()
        ]
        raise UserError(f"{' '.join(command)} cannot compile {sources[0].parent}/*.c: {said[0]}")


def _architecture() -> tuple[str, ...]:
    """What to compile for. Raises UserError when the processor has no fused multiply-add."""
    machine = platform.machine()
    if machine in ("arm64", "aarch64"):
        return ()
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        names = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        words = set(subprocess.run(names, capture_output=True, text=True).stdout.lower().split())
    if machine not in ("x86_64", "AMD64") or not {"fma", "avx2"} <= words:
        raise UserError(
            "this processor cannot run it: an x86-64 one with AVX2 and FMA (Intel since 2013, AMD "
            "since 2015) or a 64-bit ARM one is needed"
        )
    wide = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= words
    return (f"-march=x86-64-v{4 if wide else 3}",)


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
