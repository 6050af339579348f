"""What is installed against requirements.lock."""

from importlib.metadata import version

import pytest

from conftest import ROOT
from vae.cli import PACKAGES, UserError, locked_versions, run


def test_the_committed_lock_gives_one_version_of_each_package_and_it_is_installed():
    found = locked_versions(ROOT / "requirements.lock")
    assert set(found) == set(PACKAGES)
    assert found["numpy"] == version("numpy")


@pytest.mark.parametrize("pin", ["numpy==1.0.0", "numpy==1.0.0 ; python_version >= '3'"])
def test_a_script_stops_before_work_where_another_version_is_installed(tmp_path, monkeypatch, pin):
    (tmp_path / "requirements.lock").write_text(f"{pin} \\\n    --hash=sha256:00\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"numpy: {version('numpy')} is installed, .* has 1.0.0"):
        run(lambda: pytest.fail("the work began"))


def test_a_pin_for_another_python_does_not_count(tmp_path):
    (tmp_path / "lock").write_text("numpy==1.0.0 ; python_full_version < '3.8'\n")
    assert locked_versions(tmp_path / "lock") == {}


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.cli.PACKAGES", ("no-such-package",))
    (tmp_path / "lock").write_text("no-such-package==1.0\n")
    with pytest.raises(UserError, match="no-such-package: no version is installed"):
        locked_versions(tmp_path / "lock")
