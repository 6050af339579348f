"""Two builds compared: in different surroundings, and with dvc.lock."""

import json
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from conftest import ROOT
from vae.files import md5
from vae.rebuild.compare import compare, first_difference, hashes


def test_builds_in_different_surroundings_have_the_same_bits(tmp_path):
    """One with MLflow and one without: tracking changes no output."""
    command = [sys.executable, ROOT / "src/tools/verify.py", "--quick", "--output"]
    found = tmp_path / "machine.json"
    result = subprocess.run([*command, found], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    count = len(hashes(ROOT / "dvc.lock"))
    assert f"{count} outputs: the same bits in both builds" in result.stdout
    machine = json.loads(found.read_text())
    assert set(machine) == {
        "processor", "system", "compiler", "python", "outputs", "differing",
    }  # fmt: skip
    assert machine["differing"] == []


def build(folder: Path, content: str) -> Path:
    """A build whose only output has this content."""
    path = folder / "plots/a.csv"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    outs = [{"path": "plots/a.csv", "md5": md5(path)}]
    YAML().dump({"stages": {"a": {"outs": outs}, "track": {}}}, folder / "dvc.lock")
    return folder


def test_outputs_that_differ_from_others_are_named(tmp_path):
    one, same = (build(tmp_path / name, "1\n2\n") for name in ("one", "same"))
    other = build(tmp_path / "other", "1\n3\n")
    assert compare(one, other, {}) == ["plots/a.csv, the builds differ at line 2"]
    assert compare(one, same, {"plots/a.csv": "0"}) == ["plots/a.csv, dvc.lock has 0"]
    assert compare(one, same, hashes(one / "dvc.lock")) == compare(one, same, {}) == []


def test_the_place_of_a_difference_is_named(tmp_path):
    one, other = (build(tmp_path / name, name) for name in ("one", "other"))
    assert first_difference(one / "plots", other / "plots") == "a.csv, line 1"
    (other / "plots/a.csv").rename(other / "plots/b.png")
    assert first_difference(one / "plots", other / "plots") == "a.csv, missing in one of them"
    assert first_difference(one / "plots/a.csv", other / "plots/b.png") == "line 1"
    assert first_difference(other / "plots/b.png", one / "plots/a.csv") == "byte 2"
