"""How a script starts and ends: arguments, signals, one line for what a user can correct."""

import argparse
import fcntl
import gc
import os
import re
import signal
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

# Whose code goes into results.
PACKAGES = ("dvc", "imageio", "matplotlib", "mlflow", "numpy", "pandas", "pillow", "pyarrow")
PACKAGES += ("safetensors", "scikit-learn", "scipy", "torch")
# torch's words for it, in a RuntimeError.
NO_MEMORY = re.compile("out of memory|bad_alloc|can.?t allocate|cannot allocate", re.IGNORECASE)


class UserError(Exception):
    """Something the user can correct: what is wrong, where, what is allowed and what to do."""


def arguments(description: str, *names: str) -> Any:
    """Parse a stage script's command line: a named tuple with one path for each name.

    A mistake ends the script with the usage and status 2.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog="dvc.yaml has the values; `dvc repro` runs it."
    )
    for name in names:
        parser.add_argument(name, type=Path)
    return namedtuple("Arguments", names)(**vars(parser.parse_args()))


def printable(text: object) -> str:
    """The words of an error for a terminal: control characters, as of file names, are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(error: object) -> str:
    """The words of an error on one line."""
    return " ".join(str(error).split())


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`.

    What a user can correct ends it with one line and status 1; Ctrl-C and SIGTERM with
    `interrupted` and status 130.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is imported by now stays to the end: collecting it takes half a second. But Triton, which
    # comes with torchvision, complains when it is not collected.
    if "triton" not in sys.modules:
        gc.freeze()
    try:
        if Path("requirements.lock").exists():
            locked_versions(Path("requirements.lock"))
        if stage := os.environ.get("DVC_STAGE"):
            # A stage continues, and writes, when its DVC is killed.
            hold_lock(Path(f".dvc/tmp/{stage.replace('/', '-')}.lock"), stage)
        main()
    except KeyboardInterrupt:
        # Not left to the interpreter, whose own end of it becomes status 0 once Ray is imported.
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (message := explanation(error)):
            raise
        sys.exit(f"error: {message}")


def explanation(error: Exception) -> str | None:
    """Say what is wrong and what to do, where a user can correct it; None for a bug."""
    # BuildError is exact's, whose import takes seconds.
    if isinstance(error, UserError) or type(error).__name__ == "BuildError":
        return printable(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))
    ):
        return (
            "not enough memory; free some, or lower what decides it in params.yaml: layer sizes, "
            "batch sizes, figures.grid_size, anomaly.noise_images, likelihood.samples"
        )
    # A full disk, no permission. A missing file is a bug.
    if isinstance(error, OSError) and error.strerror and not isinstance(error, FileNotFoundError):
        place = printable(error.filename or "where the output goes")
        return f"{error.strerror}: {place}; correct that, then run it again"
    return None


def hold_lock(path: Path, name: str) -> None:
    """Lock a file until this process ends; where another has it, say so and wait for its end."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = f"process {path.read_text()} ({name})"
        print(f"{who} is at work in this folder; waiting for its end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    path.write_text(str(os.getpid()))


def locked_versions(lock: Path) -> dict[str, str]:
    """Return the versions of `PACKAGES`, which are installed and in a lock.

    Raises UserError where another one is installed: `dvc status` would take its results for those
    of the lock.
    """
    pins = lock.read_text(encoding="utf-8")
    found = {}
    for name in PACKAGES:
        # Which of several is for this Python, the installation has decided.
        locked = re.findall(rf"^{name}==(\S+)", pins, re.MULTILINE)
        installed = next((each.version for each in distributions(name=name)), "no version")
        found[name] = installed.partition("+")[0]
        if locked and found[name] not in locked:
            raise UserError(
                f"{name}: {found[name]} is installed, requirements.lock has "
                f"{' or '.join(locked)}; run `make setup`"
            )
    return found
