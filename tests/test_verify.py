"""Two builds compared: in different surroundings, and with dvc.lock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.fixture
def two_builds(tmp_path):
    """Stands for builds: writes their only output, and the dvc.lock that names it."""

    def write(*texts: str) -> list[Path]:
        folders = [tmp_path / str(number) for number in range(len(texts))]
        for folder, text in zip(folders, texts, strict=True):
            (folder / "plots").mkdir(parents=True)
            (folder / "plots/a.csv").write_text(text)
            outs = [{"path": "plots/a.csv", "md5": md5(folder / "plots/a.csv")}]
            YAML().dump({"stages": {"a": {"outs": outs}, "track": {}}}, folder / "dvc.lock")
        return folders

    return write


def test_an_output_that_differs_is_named_with_its_place(two_builds):
    differing = compare(*two_builds("1\n2\n", "1\n3\n"), {})
    assert differing == ["plots/a.csv, the builds differ at line 2"]


def test_an_output_that_differs_from_dvc_lock_is_named(two_builds, capsys):
    one, other = two_builds("1", "1")
    assert compare(one, other, {"plots/a.csv": "0"}) == ["plots/a.csv, dvc.lock has 0"]
    assert compare(one, other, hashes(one / "dvc.lock")) == compare(one, other, {}) == []
    assert capsys.readouterr().out.count("plots/a.csv") == 3


@pytest.mark.parametrize(
    ("name", "one", "other", "where"),
    [
        ("a.csv", b"1\n2\n3\n", b"1\n2\n4\n", "line 3"),
        ("a.csv", b"1\n2\n", b"1\n2\n3\n", "line 3"),
        ("a.png", b"abcd", b"abXd", "byte 3"),
    ],
)
def test_the_place_of_a_difference_is_named(tmp_path, name, one, other, where):
    for folder, content in (("one", one), ("other", other)):
        (tmp_path / folder / "b").mkdir(parents=True)
        (tmp_path / folder / "b" / name).write_bytes(content)
    folders = tmp_path / "one", tmp_path / "other"
    assert first_difference(*(folder / "b" / name for folder in folders)) == where
    assert first_difference(*folders) == f"b/{name}, {where}"
    (tmp_path / "one/b" / name).unlink()
    assert first_difference(*folders) == f"b/{name}, missing in one of them"
