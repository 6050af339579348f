"""How a script ends when the system refuses, and when the program is wrong."""

import errno
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            OSError(errno.ENOSPC, "No space", "a.gif"),
            "No space: a.gif; fix that, then run it again",
        ),
        (OSError(errno.ENOSPC, "No space"), "No space: where the output goes;"),
        (FileExistsError(errno.EEXIST, "File exists", "models"), "File exists: models;"),
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
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raises(error))


def test_control_characters_do_not_reach_the_terminal():
    with pytest.raises(SystemExit) as caught:
        cli.run(raises(cli.UserError("cannot read a\x1b[31m\x07é.png")))
    assert str(caught.value) == "error: cannot read a\\x1b[31m\\x07é.png"


def test_arguments_are_paths_by_name_and_in_order(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["a.py", "data", "models"])
    paths = cli.arguments("A script.", "binarized", "weights")
    assert (paths.binarized, paths.weights) == tuple(paths) == (Path("data"), Path("models"))


STAGE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from vae import cli
cli.run(lambda: print(os.getpid(), flush=True) or input())
"""


@contextmanager
def stage(folder: Path) -> Iterator[subprocess.Popen]:
    """Start a stage of DVC's in a folder: it prints its process, and ends when its input does."""
    (folder / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, ROOT / "src"],
        cwd=folder,
        env={"DVC_STAGE": "studies/dvc.yaml:a", "DVC_ROOT": str(folder.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_stage_waits_for_another_in_its_folder_alone(tmp_path):
    """Experiments side by side run the same stage, each in a folder of its own."""
    with stage(tmp_path / "one") as first:
        assert first.stdout.readline() == f"{first.pid}\n"
        with stage(tmp_path / "other") as elsewhere:
            assert elsewhere.stdout.readline() == f"{elsewhere.pid}\n"
        with stage(tmp_path / "one") as second:
            who = f"process {first.pid} (studies/dvc.yaml:a)"
            waiting = f"{who} is at work in this folder; waiting for its end\n"
            assert second.stdout.readline() == waiting
            first.stdin.close()
            assert second.stdout.readline() == f"{second.pid}\n"
