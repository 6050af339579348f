"""Mistakes that a user can mend, told in one line."""

import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EEXIST, EISDIR, ELOOP, EMFILE, ENFILE, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path

from filelock import FileLock, Timeout

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
    """Something the user can mend. The message says what is wrong, where, what is allowed and what to do."""


def arguments(*names: str) -> list[str]:
    """The script's arguments, one for each name. Raises UserError when there are more or fewer."""
    given = sys.argv[1:]
    if len(given) != len(names):
        usage = " ".join(name.upper() for name in names)
        raise UserError(f"usage: python {sys.argv[0]} {usage}; dvc.yaml has the values, `dvc repro` runs it")
    return given


def run_stage(main: Callable[[], None]) -> None:
    """Run a script's `main`. A `UserError` and a refusal of the system (full disk, no permission, no memory)
    end it with one line and status 1; Ctrl-C and SIGTERM with `interrupted` and a shell's status for it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is imported by now stays to the end: collecting it, torch above all, takes half a second. Not so
    # with torchvision, whose Triton wants to be collected, or complains.
    if "torchvision" not in sys.modules:
        gc.freeze()
    try:
        with _alone():
            main()
    except KeyboardInterrupt:
        # Not left to the interpreter, whose own end of it becomes status 0 once Ray is imported.
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        remedy, place = REMEDIES[error.errno], error.filename or "where the output goes"
        sys.exit(f"error: {error.strerror}: {place}; {remedy}, then run it again")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        sys.exit(
            "error: not enough memory; free some, or lower what decides it in params.yaml: layer sizes, "
            "batch sizes, figures.grid_size, anomaly.noise_images, likelihood.samples"
        )
    except Exception as error:
        # SQLite's words, in an error of MLflow's or of SQLAlchemy's.
        if "database or disk is full" not in str(error):
            raise
        sys.exit("error: the disk of MLflow's database is full; make room there, then run it again")


@contextmanager
def _alone() -> Iterator[None]:
    """Under DVC, wait for an earlier run of the same stage: it goes on when its DVC is killed, and writes."""
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        yield
        return
    lock = FileLock(Path(os.environ["DVC_ROOT"], f".dvc/tmp/{stage.replace('/', '-')}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"an earlier {stage} goes on, though its DVC has ended; waiting for it", flush=True)
        lock.acquire()
    with lock:
        yield
