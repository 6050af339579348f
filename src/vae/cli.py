"""The command line of every script: arguments, signals, locks and one-line error messages."""

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

# Packages whose versions can change a result.
PACKAGES = ("dvc", "imageio", "matplotlib", "mlflow", "numpy", "pandas", "pillow", "pyarrow")
PACKAGES += ("safetensors", "scikit-learn", "scipy", "torch")
# How torch's RuntimeError says it.
NO_MEMORY = re.compile("out of memory|bad_alloc|can.?t allocate|cannot allocate", re.IGNORECASE)


class UserError(Exception):
    """An error that the user can fix; its message says what is wrong, where and what to do."""


def arguments(description: str, *names: str) -> Any:
    """Parse a stage's command line: one path per name, in a named tuple. A mistake exits with 2."""
    parser = argparse.ArgumentParser(
        description=description, epilog="dvc.yaml has the values; `dvc repro` runs it."
    )
    for name in names:
        parser.add_argument(name, type=Path)
    return namedtuple("Arguments", names)(**vars(parser.parse_args()))


def printable(text: object) -> str:
    """Escape what a file name may hold and a terminal cannot show: control characters, bytes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(error: object) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` under the locked package versions.

    An error that the user can fix ends it with one line and status 1; Ctrl-C and SIGTERM end it
    with `interrupted` and status 130.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Collecting the imported modules at exit takes half a second. Triton complains without it.
    if "triton" not in sys.modules:
        gc.freeze()
    try:
        if Path("requirements.lock").exists():
            locked_versions(Path("requirements.lock"))
        if stage := os.environ.get("DVC_STAGE"):
            # A stage continues to write after its DVC is killed.
            hold_lock(Path(f".dvc/tmp/{stage.replace('/', '-')}.lock"), stage)
        main()
    except KeyboardInterrupt:
        # Once Ray is imported, the interpreter itself would exit with status 0.
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (message := explanation(error)):
            raise
        sys.exit(f"error: {message}")


def explanation(error: Exception) -> str | None:
    """Return the message for an error that the user can fix; None for a bug."""
    # By its name: importing exact, to which BuildError belongs, takes seconds.
    if isinstance(error, UserError) or type(error).__name__ == "BuildError":
        return printable(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))
    ):
        return (
            "not enough memory; free some, or lower layer sizes, batch sizes, figures.grid_size, "
            "anomaly.noise_images or likelihood.samples in params.yaml"
        )
    # A missing file is a bug: keep the traceback.
    if isinstance(error, OSError) and error.strerror and not isinstance(error, FileNotFoundError):
        place = printable(error.filename or "where the output goes")
        return f"{error.strerror}: {place}; fix that, then run it again"
    return None


def hold_lock(path: Path, name: str) -> None:
    """Lock a file until this process ends; wait while another process holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = f"process {path.read_text()} ({name})"
        print(f"{who} is at work in this folder; waiting for its end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    path.write_text(str(os.getpid()))


def locked_versions(lock: Path) -> dict[str, str]:
    """Return the installed versions of `PACKAGES`. Raises UserError unless the lock has them."""
    pins = lock.read_text(encoding="utf-8")
    found = {}
    for name in PACKAGES:
        # A lock may have several versions, each for some versions of Python.
        locked = re.findall(rf"^{name}==(\S+)", pins, re.MULTILINE)
        installed = next((each.version for each in distributions(name=name)), "no version")
        found[name] = installed.partition("+")[0]
        if locked and found[name] not in locked:
            raise UserError(
                f"{name}: {found[name]} is installed, requirements.lock has "
                f"{' or '.join(locked)}; run `make setup`"
            )
    return found
