"""How a script ends when the system refuses, and when the program is wrong."""

import errno
import re
from collections.abc import Callable

import pytest

from vae import cli


def raises(error: BaseException) -> Callable[[], None]:
    """Make a script's main that raises `error`."""

    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a.gif"),
            "No space left on device: a.gif; correct that, then run it again",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.gif"), "Disk quota exceeded: a.gif;"),
        (OSError(errno.EACCES, "Permission denied", "a.gif"), "denied: a.gif;"),
        (OSError(errno.EROFS, "Read-only file system", "a.gif"), "Read-only file system: a.gif;"),
        (OSError(errno.EMFILE, "Too many open files", "a.gif"), "Too many open files: a.gif;"),
        (FileExistsError(errno.EEXIST, "File exists", "models"), "File exists: models;"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device: where the output goes;",
        ),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
    ],
)
def test_a_refusal_of_the_system_ends_in_one_line(error, message):
    with pytest.raises(SystemExit, match=re.escape(message)) as caught:
        cli.run(raises(error))
    assert str(caught.value).startswith("error: ")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), FileNotFoundError(2, "No", "a"), KeyError("a")]
)
def test_a_mistake_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raises(error))


def test_control_characters_of_a_file_name_do_not_reach_the_terminal():
    with pytest.raises(SystemExit) as caught:
        cli.run(raises(cli.UserError("cannot read a\x1b[31m\x07é.png")))
    assert str(caught.value) == "error: cannot read a\\x1b[31m\\x07é.png"
