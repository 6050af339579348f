"""How a script starts and ends: arguments, signals, and one line for a mistake that a user can
correct."""

import argparse
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EISDIR,
    ELOOP,
    EMFILE,
    ENFILE,
    ENOSPC,
    ENOTDIR,
    EPERM,
    EROFS,
)
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout
from packaging.requirements import Requirement

# Whose code goes into results.
PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "safetensors")
PACKAGES += ("matplotlib", "pillow", "imageio", "torch", "dvc", "mlflow")
# What to do when the system refuses, by its error number.
REMEDIES = (
    dict.fromkeys((ENOSPC, EDQUOT), "make room there")
    | dict.fromkeys((EACCES, EPERM, EROFS), "let this user read and write there")
    | dict.fromkeys((EEXIST, EISDIR, ELOOP, ENOTDIR), "move what has this name out of the way")
    | dict.fromkeys((EMFILE, ENFILE), "allow more open files (ulimit -n)")
)
# torch's words for it, in a RuntimeError.
NO_MEMORY = re.compile("out of memory|bad_alloc|can.?t allocate|cannot allocate", re.IGNORECASE)


class UserError(Exception):
    """Something the user can correct: what is wrong, where, what is allowed and what to do."""


def arguments(description: str, *names: str) -> list[Path]:
    """Parse a stage script's command line: one path for each name, or the usage and status 2."""
    parser = argparse.ArgumentParser(
        description=description, epilog="dvc.yaml has the values; `dvc repro` runs it."
    )
    for name in names:
        parser.add_argument(name, type=Path)
    return list(vars(parser.parse_args()).values())


def printable(text: object) -> str:
    """The words of an error for a terminal: control characters, as of file names, are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(error: object) -> str:
    """The words of an error on one line."""
    return " ".join(str(error).split())


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`.

    A `UserError` and a refusal of the system (full disk, no permission, no memory) end it with one
    line and status 1; Ctrl-C and SIGTERM with `interrupted` and status 130.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is imported by now stays to the end: collecting it, torch above all, takes half a second.
    # Not so with torchvision, whose Triton wants to be collected, or complains.
    if "torchvision" not in sys.modules:
        gc.freeze()
    try:
        if Path("requirements.lock").exists():
            locked_versions(Path("requirements.lock"))
        with _one_of_each_stage():
            main()
    except KeyboardInterrupt:
        # Not left to the interpreter, whose own end of it becomes status 0 once Ray is imported.
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(f"error: {printable(error)}")
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        remedy, place = REMEDIES[error.errno], error.filename or "where the output goes"
        reason = f"{error.strerror}: {place}; {remedy}, then run it again"
        sys.exit(f"error: {printable(reason)}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
            raise
        sys.exit(
            "error: not enough memory; free some, or lower what decides it in params.yaml: layer "
            "sizes, batch sizes, figures.grid_size, anomaly.noise_images, likelihood.samples"
        )
    except Exception as error:
        # SQLite's words, in an error of MLflow's or of SQLAlchemy's.
        if "database or disk is full" not in str(error):
            raise
        sys.exit("error: the disk of MLflow's database is full; make room there, then run it again")


def locked_versions(lock: Path) -> dict[str, str]:
    """Return the versions of `PACKAGES` in a lock, for this Python.

    Raises UserError where another one is installed: `dvc status` would take its results for those
    of the lock.
    """
    lines = [line.rstrip(" \\") for line in lock.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line.partition("==")[0] in PACKAGES]
    locked = {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if not pin.marker or pin.marker.evaluate()
    }
    for name, wanted in locked.items():
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "no version"
        if found != wanted:
            raise UserError(
                f"{name}: {found} is installed, requirements.lock has {wanted}; run `make setup`"
            )
    return locked


@contextmanager
def _one_of_each_stage() -> Iterator[None]:
    """Under DVC, wait for an earlier run of this stage: it goes on when its DVC is killed, and
    writes."""
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        yield
        return
    lock = FileLock(Path(os.environ["DVC_ROOT"], f".dvc/tmp/{stage.replace('/', '-')}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(
            f"an earlier {stage} still runs, though its DVC has ended; waiting for it", flush=True
        )
        lock.acquire()
    with lock:
        yield
