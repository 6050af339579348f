"""How a script ends when the system refuses, and when the program is wrong."""

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT
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


def test_paths_have_their_arguments_names(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["a.py", "data", "models"])
    paths = cli.arguments("A script.", "binarized", "weights")
    assert (paths.weights, paths.binarized) == (Path("models"), Path("data"))


STAGE = """
import sys
sys.path.insert(0, sys.argv[1])
from vae import cli
cli.run(lambda: print(cli.os.getpid(), input(), flush=True))
"""


def stage(folder: Path) -> subprocess.Popen:
    """Start a stage of DVC's in a folder, which ends when it gets a line."""
    (folder / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, ROOT / "src"],
        cwd=folder,
        env={"DVC_STAGE": "studies/dvc.yaml:a", "DVC_ROOT": str(folder.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_stage_waits_for_an_earlier_one_in_its_folder_alone(tmp_path):
    """Experiments side by side run the same stage, each in a folder of its own."""
    one, other = tmp_path / "one", tmp_path / "other"
    first = stage(one)
    elsewhere = stage(other)
    assert elsewhere.communicate("b\n")[0].split()[1] == "b"
    while not (lock := one / ".dvc/tmp/studies-dvc.yaml:a.lock").exists() or not lock.read_text():
        pass
    second = stage(one)
    waiting = second.stdout.readline()
    assert waiting.startswith(f"process {first.pid} (studies/dvc.yaml:a) is at work in this folder")
    assert first.communicate("c\n")[0].split() == [str(first.pid), "c"]
    assert second.communicate("d\n")[0].split() == [str(second.pid), "d"]
