"""Mistakes that a user can mend, told in one line."""

import gc
import signal
import sys
from collections.abc import Callable


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
    """Run a script's `main`; a `UserError` ends it with one line and status 1. SIGTERM does as Ctrl-C, which
    `vae/__init__.py` tells of in a line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is imported by now stays to the end: collecting it, torch above all, takes half a second. Not so
    # with torchvision, whose Triton wants to be collected, or complains.
    if "torchvision" not in sys.modules:
        gc.freeze()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
