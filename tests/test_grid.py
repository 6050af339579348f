"""What `make experiments` shows of DVC's experiments, and how it answers a wrong grid."""

import math
import re
import sys

import pytest

import experiments
from conftest import ROOT
from vae.cli import UserError


def entry(name: str, epochs: int, loss: float, state: str | None = None) -> dict:
    """An experiment as `dvc exp show --json` has it."""
    summary = {model: {"test_loss": loss} for model in ("20d", "2d")}
    data = {
        "params": {"params.yaml": {"data": {"seed": 1, "train": {"epochs": epochs}}}},
        "metrics": {"metrics/summary.json": {"data": summary}},
    }
    executor = {"state": state} if state else None
    return {"name": name, "rev": name, "revs": [{"rev": name, "data": data}], "executor": executor}


def shown(*tried: dict) -> list[experiments.Row]:
    commit = entry("main", 10, 100.0)
    head = {"name": "main", "rev": "main", "data": commit["revs"][0]["data"], "experiments": tried}
    return list(experiments.experiments([head]))


def test_an_experiment_shows_its_losses_its_distance_and_what_differs():
    rows = shown(entry("short", 2, 120.5))
    assert rows[1] == experiments.Row("  short", [120.5, 120.5], ["train.epochs=2"])
    line = list(experiments.lines(rows))[2]
    assert line.split() == ["short", "120.500", "+20.500", "120.500", "+20.500", "train.epochs=2"]


@pytest.mark.parametrize("state", ["failed", "queued", "running"])
def test_an_experiment_that_has_not_ended_well_shows_no_losses(state):
    (row,) = shown(entry("short", 2, 120.5, state))[1:]
    assert all(map(math.isnan, row.losses))
    assert row.differs == [state, "train.epochs=2"]


def test_the_figure_has_a_point_for_each_experiment_by_what_differs():
    figure = experiments.loss_dots(shown(entry("a", 2, 120.5), entry("b", 3, 110.25)))
    for axes in figure.axes:
        assert list(axes.lines[0].get_xdata()) == [100.0, 120.5, 110.25]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["main", "train.epochs=2", "train.epochs=3"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=1", "train.epoch is an unknown key; did you mean epochs?"),
        ("trian.epochs=1", "params.yaml has no group trian, which trian.epochs names"),
        ("train.epochs=1,-2", "train.epochs is -2; it should be greater than or equal to 1"),
    ],
)
def test_a_wrong_key_or_value_of_a_grid_is_named_before_anything_runs(
    monkeypatch, setting, message
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["experiments.py", setting])
    monkeypatch.setattr(experiments, "dvc", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(UserError, match=re.escape(message)):
        experiments.main()
