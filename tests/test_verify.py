"""Two builds compared: with everything varied, with dvc.lock, and what is said of a difference."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

import verify
from conftest import ROOT
from vae.rebuild.compare import first_difference, hashes


def test_two_builds_with_all_varied_that_must_not_matter_have_the_same_bits(tmp_path):
    """With MLflow and without, too: turning tracking off changes no output."""
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
def two_builds(monkeypatch):
    """Stand for builds: a text and the dvc.lock that names it; the second's may differ."""
    texts = ["1\n2\n", "1\n2\n"]

    def fake_build(folder, overrides, variables, **options):
        text = texts[0] if overrides["tracking"]["enabled"] else texts[1]
        (folder / "plots").mkdir(parents=True)
        (folder / "plots/a.csv").write_text(text)
        outs = [{"path": "plots/a.csv", "md5": hashlib.md5(text.encode()).hexdigest()}]
        YAML().dump({"stages": {"a": {"outs": outs}, "track": {}}}, folder / "dvc.lock")

    monkeypatch.setattr(verify, "build", fake_build)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    return texts


def test_an_output_in_which_two_builds_differ_is_named_with_its_place(tmp_path, two_builds):
    two_builds[1] = "1\n3\n"
    _, differing = verify.build_twice(tmp_path, {}, None)
    assert differing == ["plots/a.csv, the builds differ at line 2"]


def test_an_output_of_other_bits_than_dvc_locks_is_named(tmp_path, two_builds):
    found, differing = verify.build_twice(tmp_path, {}, {"plots/a.csv": "0123"})
    assert differing == ["plots/a.csv, dvc.lock has 0123"]
    assert found == {"plots/a.csv": hashlib.md5(b"1\n2\n").hexdigest()}


def test_outputs_that_are_all_equal_differ_nowhere(tmp_path, two_builds):
    committed = {"plots/a.csv": hashlib.md5(b"1\n2\n").hexdigest()}
    assert verify.build_twice(tmp_path, {}, committed) == (committed, [])


@pytest.mark.parametrize(
    ("name", "one", "other", "where"),
    [
        ("a.csv", b"1\n2\n3\n", b"1\n2\n4\n", "line 3"),
        ("a.csv", b"1\n2\n", b"1\n2\n3\n", "line 3"),
        ("a.png", b"abcd", b"abXd", "byte 3"),
    ],
)
def test_the_place_where_two_outputs_differ_is_named(tmp_path, name, one, other, where):
    for folder, content in (("one", one), ("other", other)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    assert first_difference(tmp_path / "one" / name, tmp_path / "other" / name) == where
    assert first_difference(tmp_path / "one", tmp_path / "other") == f"{name}, {where}"
    (tmp_path / "other" / name).unlink()
    assert first_difference(tmp_path / "one", tmp_path / "other") == f"{name}, missing in the other"
