import hashlib
import json
import os
import subprocess
import sys

import verify
from conftest import ROOT
from vae import arithmetic
from vae.cli import UserError
from vae.rebuild.compare import first_difference, hashes
from vae.reproduction.published import compare_losses, load_losses, load_published, replay_misses

import pytest
import torch
from ruamel.yaml import YAML


def run(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, **options)


def test_two_builds_with_all_varied_that_must_not_matter_have_the_same_bits():
    result = run(ROOT / "src/tools/verify.py", "--quick", cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    outputs = len(hashes(ROOT / "dvc.lock"))
    assert f"{outputs} outputs: the same bits in both builds" in result.stdout


def test_the_committed_losses_replay_the_authors_run():
    ours = {model: load_losses(ROOT / f"plots/{model}-losses.csv") for model in ("20d", "2d")}
    misses = replay_misses(compare_losses(ours, load_published(ROOT / "data/published")))
    assert misses.empty, misses


def test_a_loss_beyond_the_replay_tolerance_is_named():
    published = load_published(ROOT / "data/published")
    ours = {model: tables["notebook"].copy() for model, tables in published.items()}
    ours["20d"].loc[3, "test_loss"] += 0.26
    ours["2d"].loc[0, "train_loss"] = float("nan")
    misses = replay_misses(compare_losses(ours, published))
    assert misses[["model", "epoch", "split"]].values.tolist() == [
        ["20d", 4, "test"],
        ["2d", 1, "train"],
    ]


def test_the_record_has_the_hashes_that_dvc_lock_has_and_names_what_owns_them():
    record = json.loads((ROOT / "reproducibility.json").read_text())
    shown = subprocess.run(["git", "show", ":dvc.lock"], cwd=ROOT, capture_output=True, check=True)
    stages = YAML(typ="safe").load(shown.stdout)["stages"].values()
    committed = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
    assert record["native"]["outputs"] == committed
    assert set(record["native"]) == {*arithmetic.owner(), "outputs"}
    assert set(record["portable"]["outputs"]) == set(verify.MODELS)


def fake_build(folder, overrides, variables, **options):
    """Stand for a build: a text and the dvc.lock that names it; the text of the second differs."""
    text = "1\n2\n" if overrides["tracking"]["enabled"] else "1\n3\n"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots/a.csv").write_text(text)
    outs = [{"path": "plots/a.csv", "md5": hashlib.md5(text.encode()).hexdigest()}]
    YAML().dump({"stages": {"a": {"outs": outs}, "track": {}}}, folder / "dvc.lock")


def test_an_output_in_which_two_builds_differ_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "build", fake_build)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(UserError, match=r"not the same bits: plots/a.csv \(line 2\)"):
        verify.build_twice(tmp_path, {})


def test_other_bits_than_recorded_are_named_but_on_another_processor_not_compared(capsys):
    owner, found = {"cpu": "this", "torch": "1"}, {"a": "0", "b": "1"}
    verify.compare_with_record({**owner, "outputs": found}, owner, found)
    assert "the same bits" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has: b, c$"):
        verify.compare_with_record({**owner, "outputs": {"a": "0", "c": "1"}}, owner, found)
    verify.compare_with_record({**owner, "cpu": "other", "outputs": {}}, owner, found)
    printed = capsys.readouterr().out
    assert "belong to another processor or PyTorch (cpu other, here this)" in printed
    assert printed.count("\n") == 1


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


PIN = """
import os, sys
sys.path.insert(0, {src!r})
from vae.arithmetic import PORTABLE, pin
pin(sys.argv[1])
import torch
print(all(os.environ.get(k) == v for k, v in PORTABLE.items()),
      torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), sys.argv[1:])
"""


def test_portable_arithmetic_is_set_before_torch_is_loaded_whatever_the_environment_says(tmp_path):
    (tmp_path / "pin.py").write_text(PIN.format(src=str(ROOT / "src")))
    result = run(
        tmp_path / "pin.py", "portable", "kept", env={"OMP_NUM_THREADS": "7", "MKL_CBWR": "AVX2"}
    )
    assert result.stdout == "True AVX2 2 ['portable', 'kept']\n"
    result = run(tmp_path / "pin.py", "native", env={"OMP_NUM_THREADS": "1"})
    assert result.stdout.startswith("False")
    assert result.stdout.endswith(" 1 ['native']\n")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_runs_on_cuda_have_equal_bits(tmp_path, digits):
    weights = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = (ROOT / "params.yaml").read_text().replace("device: auto", "device: cuda")
        (folder / "params.yaml").write_text(text.replace("enabled: true", "enabled: false"))
        result = run(ROOT / "src/train.py", "20d", digits, cwd=folder)
        assert result.returncode == 0, result.stderr
        weights.append((folder / "models/20d.safetensors").read_bytes())
    assert weights[0] == weights[1]
