"""Mistakes that a user can mend, told in one line."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, what is allowed and what to do."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UserError` or Ctrl-C ends it with one line and a non-zero status."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
