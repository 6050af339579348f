"""What `make experiments` shows of DVC's experiments, and how wrong other values are answered."""

import math
import re
import sys

import pandas as pd
import pytest

import experiments
import repro
from conftest import ROOT
from vae.cli import UserError


def shown(*tried: tuple[str, int, float | str, str]) -> pd.DataFrame:
    """The table of a commit and of experiments by name, epochs, losses and state, as CSV of DVC."""
    rows = [("", "workspace", "baseline", "", 100.0, 10), ("", "main", "baseline", "", 100.0, 10)]
    rows += [(name, "abc", "branch_base", state, loss, n) for name, n, loss, state in tried]
    names = ["Experiment", "rev", "typ", "State", "20d.test_loss", "train.epochs"]
    table = pd.DataFrame(rows, columns=names)
    table["2d.test_loss"] = table["20d.test_loss"]
    return experiments.experiments(table.to_csv(index=False))


def test_an_experiment_shows_its_losses_its_distance_and_what_differs():
    table = shown(("short", 2, 120.5, "Success"))
    assert table.loc[2].tolist() == ["short", 120.5, 120.5, ["train.epochs=2"]]
    line = list(experiments.lines(table))[3]
    assert line.split() == ["short", "120.500", "+20.500", "120.500", "+20.500", "train.epochs=2"]


def test_without_experiments_the_commit_and_the_workspace_are_shown():
    csv = (
        "Experiment,rev,typ,20d.test_loss,2d.test_loss,train.epochs\n"
        ",workspace,baseline,90.5,140.5,3\n,main,baseline,88.0,141.0,10\n"
    )
    _, here, commit = experiments.lines(experiments.experiments(csv))
    assert here.split() == ["workspace", "90.500", "+2.500", "140.500", "-0.500", "train.epochs=3"]
    assert commit.split() == ["main", "88.000", "+0.000", "141.000", "+0.000"]


def test_however_much_differs_a_line_has_80_columns():
    table = shown(("a-name-of-20-letters", 2, 120.5, ""))
    table.at[2, "differs"] = ["train.epochs=2", "train-20d.decoder_hidden_sizes=[400, 400]"] * 3
    for line in experiments.lines(table):
        assert max(map(len, line.splitlines())) <= 80
    assert " ".join(line.split()).endswith(" ".join(table.at[2, "differs"]))


@pytest.mark.parametrize("state", ["Failed", "Queued", "Running"])
def test_an_experiment_that_has_not_ended_well_shows_no_losses(state):
    row = shown(("short", 2, 120.5, state)).loc[2]
    assert all(map(math.isnan, row[["20d", "2d"]]))
    assert row["differs"] == [state.lower(), "train.epochs=2"]


def test_the_figure_has_a_point_for_each_experiment_by_what_differs():
    figure = experiments.loss_dots(shown(("a", 2, 120.5, ""), ("b", 3, 110.25, "")))
    for axes in figure.axes:
        assert list(axes.lines[0].get_xdata()) == [100.0, 100.0, 120.5, 110.25]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["workspace", "main", "train.epochs=2", "train.epochs=3"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=1", "train.epoch is an unknown key; did you mean epochs?"),
        ("trian.epochs=1", "params.yaml has no group trian, which trian.epochs names"),
        ("train.epochs=1,-2", "train.epochs is -2; it should be greater than or equal to 1"),
    ],
)
@pytest.mark.parametrize(("script", "option"), [(experiments, []), (repro, ["-S"])])
def test_a_wrong_key_or_value_is_named_before_anything_runs(
    monkeypatch, script, option, setting, message
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script.__name__, *option, setting])
    monkeypatch.setattr(script, "dvc", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(UserError, match=re.escape(message)):
        script.main()
