"""Values as they are typed, and what `make experiments` shows of DVC's experiments."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML

import experiments
import repro
from conftest import ROOT
from vae.cli import UserError
from vae.grid import dvc_options, read_grid


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("", {}),
        ("a.b=data/own/my pictures c=1,4", {"a.b": ["data/own/my pictures"], "c": [1, 4]}),
        ("train-20d.hidden_sizes=[400, 200]", {"train-20d.hidden_sizes": [[400, 200]]}),
        (" a = 1, 4\n b= null", {"a": [1, 4], "b": [None]}),
        ("a='x b=1, y' b=it's", {"a": ["x b=1, y"], "b": ["it's"]}),
        ("a=é;$5#1 b=1e-3", {"a": ["é;$5#1"], "b": [0.001]}),
    ],
)
def test_values_with_spaces_are_taken_as_typed(text, grid):
    assert read_grid(text) == grid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "'epochs' is not KEY=VALUE"),
        ("=1", "'=1' is not KEY=VALUE"),
        ("a=[1", "is not KEY=VALUE"),
        ("a=1 b=2 a=3", "has a key twice"),
    ],
)
def test_what_is_no_key_and_value_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_grid(text)


TEXTS = ["my runs", "é αβ", 'say "x"', "a,b=[c", "$5 `x`", "null", " a"]
VALUES = [*TEXTS, 1e-3, None, True, [400, 200], {"first": None, "every": 2}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("more", [[], ["b"]])
def test_dvc_writes_a_value_as_typed_and_nothing_else(bare, value, more):
    text = Path("params.yaml").read_text()
    (option,) = dvc_options({"tracking.experiment": [value, *more]})
    override = {"params.yaml": [option.removeprefix("--set-param=")]}
    first = get_hydra_sweeps(override)[0] if more else override
    apply_overrides("params.yaml", first["params.yaml"])
    written = Path("params.yaml").read_text()
    assert YAML(typ="safe").load(written)["tracking"]["experiment"] == value
    if not isinstance(value, list | dict):
        assert written.splitlines()[:-1] == text.splitlines()[:-1]


@pytest.mark.parametrize("value", ["a\\b", "${x}", "a\nb"])
def test_a_value_that_dvc_would_change_is_refused(value):
    with pytest.raises(UserError, match="DVC takes no"):
        dvc_options({"tracking.experiment": [value]})


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (experiments, ["train.epoch=1"], "train.epoch is an unknown key; did you mean epochs?"),
        (experiments, ["train.beta=2 train.epochs=-2"], "train.epochs is -2; it should be"),
        (repro, ["-S", "trian.epochs=1"], "params.yaml has no group trian, which trian.epochs"),
        (repro, ["-S", "train.beta=2 train.epochs=-2"], "train.epochs is -2; it should be"),
        (repro, ["-S", "train.epochs=2,3"], "make experiments GRID= tries several"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_anything_runs(
    monkeypatch, script, arguments, message
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    monkeypatch.setattr(script, "dvc", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(UserError, match=re.escape(message)):
        script.main()


@pytest.mark.parametrize(("target", "name"), [("repro", "SET"), ("experiments", "GRID")])
def test_make_hands_values_on_as_typed(tmp_path, target, name):
    for folder in ("src/tools", "src/vae"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("Makefile", "src/vae/environment.mk"):
        (tmp_path / file).write_text((ROOT / file).read_text())
    script = "import sys\nprint(sys.argv[-1], end='')\n"
    (tmp_path / f"src/tools/{target}.py").write_text(script)
    text = 'tracking.experiment="my runs" a=[4, 2] b=it\'s $HOME $(x) `y` #z; * \\w'
    command = ["make", "--silent", "--assume-old=setup", target, f"{name}={text}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (text, "")


COMMIT = {"typ": "baseline", "20d.test_loss": 100.0, "2d.test_loss": 50.0, "train.epochs": 10.0}
COMMIT |= {"Experiment": None, "State": None}


@pytest.fixture
def shown(monkeypatch):
    """Let DVC have experiments, by name, 20-d loss and state, of 2 epochs, after two commits."""

    def show(*tried: tuple[str, float, str | None]) -> pd.DataFrame:
        full = [COMMIT | {"rev": rev} for rev in ("workspace", "main", "e1d2f3a")]
        for number, (name, loss, state) in enumerate(tried):
            values = {"Experiment": name, "rev": f"abc{number}", "typ": "branch_base"}
            values |= {"20d.test_loss": loss, "train.epochs": 2.0, "State": state}
            full.append(COMMIT | values)
        monkeypatch.setattr(experiments, "exp_show", lambda **_: full)
        return experiments.experiments()

    return show


def test_earlier_experiments_stay_and_names_are_unique(shown):
    table = shown(("a", 120.5, None), ("main", 90.0, None), ("a", 80.0, None))
    assert table["name"].tolist() == ["workspace", "main main", "a abc0", "main abc1", "a abc2"]


def test_changes_within_noise_are_marked_and_failures_have_none(shown):
    table = shown(("a", 100.4, None), ("b", 99.0, None), ("c", 120.5, "Failed"))
    *_, one, other, failed, note = experiments.lines(table, {"20d": 0.5})
    assert ("+0.400~" in one, "~" in other) == (True, False)
    assert failed.split() == ["c", "failed", "train.epochs=2"]
    assert note.endswith(": 20d 0.50 nats")


def test_the_seeds_noise_is_known_for_the_studied_models_alone(monkeypatch):
    row = {"split": "test", "n": 20, "low": 87.0, "high": 89.0, "model": "20d", "epoch": 10}
    row |= {"verdict": "consistent"}
    other = row | {"verdict": "other parameters", "model": "2d"}
    text = json.dumps({"published": [row, row | {"epoch": 9, "high": 99.0}, other]})
    monkeypatch.setattr(experiments, "committed", lambda path: text)
    assert experiments.seed_noise() == {"20d": pytest.approx(math.sqrt(2 / 1.05))}
    monkeypatch.setattr(experiments, "committed", lambda path: "")
    assert experiments.seed_noise() == {}


def test_however_much_differs_a_line_has_80_columns(shown):
    table = shown(("a-name-of-20-letters", 120.5, None))
    table.at[2, "differs"] = " ".join(["train-20d.decoder_hidden_sizes=[400, 400]"] * 3)
    lines = list(experiments.lines(table, {"20d": 10.25, "2d": 3.125}))
    assert max(len(part) for line in lines for part in line.splitlines()) <= 80
    assert " ".join(lines[3].split()).endswith(table.at[2, "differs"])


def test_images_that_git_does_not_know_are_named_before_queueing(bare, monkeypatch):
    monkeypatch.setattr(experiments, "dvc", lambda *arguments: 1)
    Path(".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    images = Path("data/own/my pictures")
    images.mkdir(parents=True)
    for name in ("1.png", ".DS_Store", "Thumbs.db", f"../{images.name}.dvc"):
        (images / name).touch()
    subprocess.run(["git", "init", "--quiet"], check=True)
    grid = read_grid("download.dataset=mnist,data/own/my pictures")
    with pytest.raises(UserError, match=f"{images} is not: git add"):
        experiments.run_queue(grid)
    for known in (images / "1.png", f"{images}.dvc"):
        subprocess.run(["git", "add", known], check=True)
        with pytest.raises(UserError, match="no experiment was queued"):
            experiments.run_queue(grid)
        subprocess.run(["git", "rm", "--quiet", "--cached", known], check=True)
