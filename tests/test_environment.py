"""What is installed against requirements.lock."""

import os
import shutil
import subprocess
from importlib.metadata import version

import pytest

from conftest import ROOT
from vae.cli import PACKAGES, UserError, locked_versions, run


def test_the_committed_locks_versions_are_installed():
    found = locked_versions(ROOT / "requirements.lock")
    assert set(found) == set(PACKAGES)
    assert found["numpy"] == version("numpy")


@pytest.mark.parametrize(
    "pins", [("1.0.0",), ("1.0.0 ; python_version < '3.12'", "1.0.1 ; python_version >= '3.12'")]
)
def test_a_script_does_not_run_with_another_version(tmp_path, monkeypatch, pins):
    lines = [f"numpy=={pin} \\\n    --hash=sha256:00\n" for pin in pins]
    (tmp_path / "requirements.lock").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"numpy: {version('numpy')} is installed, .* has 1.0.0"):
        run(lambda: pytest.fail("the work began"))


def test_of_the_pins_for_several_pythons_the_installed_one_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.cli.PACKAGES", ("numpy",))
    pins = [
        "numpy==1.0.0 ; python_version < '3.0'",
        f"numpy=={version('numpy')} ; python_version > '3'",
    ]
    (tmp_path / "lock").write_text("\n".join(pins))
    assert locked_versions(tmp_path / "lock") == {"numpy": version("numpy")}


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.cli.PACKAGES", ("no-such-package",))
    (tmp_path / "lock").write_text("no-such-package==1.0\n")
    with pytest.raises(UserError, match="no-such-package: no version is installed"):
        locked_versions(tmp_path / "lock")


@pytest.mark.parametrize(
    ("repository", "reason"), [(False, "not a git repository"), (True, "dubious ownership")]
)
def test_set_up_without_git_says_why_and_makes_nothing(tmp_path, repository, reason):
    """In the folder of a source archive, and in a checkout that another user owns."""
    (tmp_path / "src/vae").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "src/vae/environment.mk"):
        shutil.copy(ROOT / name, tmp_path / name)
    if repository:
        subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    # Git's own switch for its tests of this.
    environment |= {"GIT_TEST_ASSUME_DIFFERENT_OWNER": str(int(repository)), "LC_ALL": "C"}
    result = subprocess.run(
        ["make", "setup"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode
    assert reason in result.stderr
    assert "error: git cannot use this folder, for the reason above" in result.stderr
    assert not (tmp_path / ".venv").exists()
