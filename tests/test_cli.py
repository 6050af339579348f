"""How a script ends when the system refuses or the program is wrong, and where it does not run."""

import errno
import os
import re
from importlib.metadata import version
from unittest.mock import Mock

import pytest

from conftest import ROOT
from vae import cli


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space", "a.gif"), "No space: a.gif; fix that, then run"),
        (OSError(errno.ENOSPC, "No space"), "No space: where the output goes;"),
        (FileExistsError(errno.EEXIST, "File exists", "models"), "File exists: models;"),
        (PermissionError(errno.EACCES, "Permission denied", "data"), "Permission denied: data;"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (cli.UserError("cannot read a\x1b[31m\x07é.png"), r"cannot read a\x1b[31m\x07é.png"),
    ],
)
def test_a_refusal_of_the_system_ends_in_one_line(error, message):
    with pytest.raises(SystemExit, match=re.escape(f"error: {message}")):
        cli.run(Mock(side_effect=error))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), FileNotFoundError(2, "No", "a"), KeyError("a")]
)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(Mock(side_effect=error))


def test_the_committed_locks_versions_are_installed():
    """Of numpy's pins for several Pythons one is."""
    found = cli.locked_versions(ROOT / "requirements.lock")
    assert set(found) == set(cli.PACKAGES)
    assert found["numpy"] == version("numpy")


@pytest.mark.parametrize(
    ("package", "found"), [("numpy", version("numpy")), ("no-such-package", "no version")]
)
def test_a_script_does_not_run_with_another_version(tmp_path, monkeypatch, package, found):
    (tmp_path / "requirements.lock").write_text(f"{package}==1.0.0 \\\n    --hash=sha256:00\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vae.cli.PACKAGES", (package,))
    with pytest.raises(SystemExit, match=f"{package}: {found} is installed, .* has 1.0.0"):
        cli.run(lambda: pytest.fail("the work began"))


def test_a_stage_of_studies_has_its_own_lock(tmp_path, monkeypatch):
    folder = tmp_path / ".dvc/tmp"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "studies/dvc.yaml:study")
    cli.run(lambda: None)
    assert (folder / "studies-dvc.yaml:study.lock").read_text() == str(os.getpid())
