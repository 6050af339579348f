"""What is installed against requirements.lock."""

from importlib.metadata import version

import pytest

from conftest import ROOT
from vae.cli import PACKAGES, UserError, locked_versions, run


def test_the_committed_lock_gives_one_version_of_each_package_and_it_is_installed():
    found = locked_versions(ROOT / "requirements.lock")
    assert set(found) == set(PACKAGES)
    assert found["numpy"] == version("numpy")


@pytest.mark.parametrize(
    "pins", [("1.0.0",), ("1.0.0 ; python_version < '3.12'", "1.0.1 ; python_version >= '3.12'")]
)
def test_a_script_stops_before_work_where_another_version_is_installed(tmp_path, monkeypatch, pins):
    lines = [f"numpy=={pin} \\\n    --hash=sha256:00\n" for pin in pins]
    (tmp_path / "requirements.lock").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"numpy: {version('numpy')} is installed, .* has 1.0.0"):
        run(lambda: pytest.fail("the work began"))


def test_of_the_pins_for_several_pythons_the_installed_one_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.cli.PACKAGES", ("numpy",))
    pins = (
        f"numpy==1.0.0 ; python_version < '3.0'\nnumpy=={version('numpy')} ; python_version > '3'"
    )
    (tmp_path / "lock").write_text(pins)
    assert locked_versions(tmp_path / "lock") == {"numpy": version("numpy")}


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.cli.PACKAGES", ("no-such-package",))
    (tmp_path / "lock").write_text("no-such-package==1.0\n")
    with pytest.raises(UserError, match="no-such-package: no version is installed"):
        locked_versions(tmp_path / "lock")
