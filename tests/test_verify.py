import hashlib
import json
import subprocess
import sys

import verify
from conftest import ROOT
from vae import arithmetic
from vae.cli import UserError
from vae.rebuild.compare import first_difference, hashes, loss_differences, pixel_difference
from vae.report.figures import save_gif
from vae.reproduction.published import compare_losses, load_losses, load_published, replay_misses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image


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


def test_the_record_names_what_owns_the_committed_hashes():
    record = json.loads((ROOT / "reproducibility.json").read_text())
    committed = subprocess.run(
        ["git", "show", ":dvc.lock"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    assert record["native"]["dvc.lock"] == hashlib.md5(committed).hexdigest()
    assert set(record["native"]) == {*arithmetic.owner(), "dvc.lock"}
    assert set(record["portable"]) == {"torch", *verify.MODELS}


def test_other_hardware_is_told_apart(monkeypatch, capsys):
    here = arithmetic.owner()
    record = json.dumps({"native": {**here, "cpu": {"vendor": "another"}}})
    monkeypatch.setattr(verify, "RECORD", type("Record", (), {"read_text": lambda *a, **k: record}))
    assert not verify.owns_committed_hashes()
    assert "other hardware: comparing values, not bits" in capsys.readouterr().out
    monkeypatch.setattr(
        verify,
        "RECORD",
        type("Record", (), {"read_text": lambda *a, **k: json.dumps({"native": here})}),
    )
    assert verify.owns_committed_hashes()


def values_folder(folder, train_loss: float):
    """A built or committed state, as far as values are compared: losses and a figure."""
    for model in ("20d", "2d"):
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(
            {"epoch": [1, 2], "train_loss": [100.0, train_loss], "test_loss": [99.0, 89.0]}
        )
        table.to_csv(folder / f"plots/{model}-losses.csv", index=False)
    for name in ("plots", "docs/figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), round(train_loss), np.uint8)).save(
            folder / name / "picture.png"
        )
    return folder


def test_on_other_hardware_values_are_compared_within_printed_tolerances(tmp_path, capsys):
    built, committed = values_folder(tmp_path / "a", 90.0), values_folder(tmp_path / "b", 90.09)
    verify.compare_values(built, committed)
    assert (
        "20d train loss, nats                 differs by    0.090, tolerance 0.1"
        in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="beyond the tolerance: 20d train loss"):
        verify.compare_values(built, values_folder(tmp_path / "c", 90.11))
    with pytest.raises(UserError, match=r"picture.png, gray values"):
        verify.compare_values(built, values_folder(tmp_path / "d", 200.0))


@pytest.mark.parametrize(
    ("name", "one", "other", "where"),
    [
        ("a.csv", b"1\n2\n3\n", b"1\n2\n4\n", "line 3"),
        ("a.csv", b"1\n2\n", b"1\n2\n3\n", "line 3"),
        ("a.png", b"abcd", b"abXd", "byte 3"),
    ],
)
def test_the_place_where_two_outputs_part_is_named(tmp_path, name, one, other, where):
    for folder, content in (("one", one), ("other", other)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    assert first_difference(tmp_path / "one" / name, tmp_path / "other" / name) == where
    assert first_difference(tmp_path / "one", tmp_path / "other") == f"{name}, {where}"
    (tmp_path / "other" / name).unlink()
    assert first_difference(tmp_path / "one", tmp_path / "other") == f"{name}, missing in the other"


def test_a_missing_epoch_is_no_small_difference(tmp_path):
    one, other = values_folder(tmp_path / "a", 90.0), values_folder(tmp_path / "b", 90.0)
    path = other / "plots/2d-losses.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    differences = loss_differences(one, other)
    assert differences["20d", "train"] == 0
    assert differences["2d", "train"] == float("inf")


def test_animations_are_compared_as_they_play(tmp_path):
    """However an encoder merges equal frames, the same film is the same film."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    frames[1] = frames[0]
    save_gif(tmp_path / "merged.gif", frames, 50)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[1].putpixel((0, 0), int(frames[0, 0, 0]) ^ 1)
    pictures[0].save(
        tmp_path / "whole.gif", save_all=True, append_images=pictures[1:], duration=50, loop=0
    )
    assert pixel_difference(tmp_path / "merged.gif", tmp_path / "whole.gif") < 0.01
    save_gif(tmp_path / "shorter.gif", frames[:3], 50)
    assert pixel_difference(tmp_path / "merged.gif", tmp_path / "shorter.gif") == float("inf")


PIN = """
import os, sys
sys.path.insert(0, {src!r})
from vae.arithmetic import PORTABLE, pin
pin(sys.argv[1])
import torch
print(all(os.environ.get(k) == v for k, v in PORTABLE.items()), torch.backends.cpu.get_cpu_capability(),
      torch.get_num_threads(), sys.argv[1:])
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
