"""Published losses beside ours, the study that judges them, and the verdicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from vae.cli import UserError
from vae.files import records
from vae.losses import by_split
from vae.params import Binarize
from vae.report import text
from vae.reproduction.intervals import load_study
from vae.reproduction.published import compare_losses, load_published
from vae.reproduction.verdicts import count_replays, fit_batches, judge, worse_than

OF_MNIST = "mnist", Binarize(mode="threshold", threshold=128)
STUDY = (ROOT / "studies/seeds.csv").read_text().splitlines(keepends=True)
INTERVALS = load_study(ROOT / "studies/seeds.csv")[1]
PUBLISHED = load_published(ROOT / "data/published", *OF_MNIST).losses


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of data/published."""
    return shutil.copytree(ROOT / "data/published", tmp_path / "published")


def test_each_published_loss_stands_beside_ours_or_null():
    """For a run of 8 epochs, whose losses are a hundredth above the post's."""
    post = PUBLISHED[(PUBLISHED["source"] == "post") & (PUBLISHED["split"] != "noise")]
    tables = post.pivot(index=["model", "epoch"], columns="split", values="published")
    assert tables.loc[("20d", 10)].to_dict() == {"train": 87.911918, "test": 87.646744}
    assert tables.loc[("2d", 10)].to_dict() == {"train": 138.443796, "test": 140.24413}
    losses = (tables + 0.01).add_suffix("_loss").reset_index()
    runs = {model: of_model[:8] for model, of_model in losses.groupby("model")}
    rows = records(judge(compare_losses(runs, 51.773, PUBLISHED), INTERVALS))
    assert len(rows) == 81
    assert [row["ours"] is None for row in rows] == [row["epoch"] > 8 for row in rows]
    of_post = [row["difference"] for row in rows if row["source"] == "post" and row["epoch"] <= 8]
    assert of_post == pytest.approx([0.01] * 33)
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has 0 seeds"),
        ("".join(line for line in STUDY if ",defaults,0," not in line), "has 19 seeds of the 20d"),
        ("".join(STUDY).replace("arm", "branch"), "has no column arm"),
        ("".join(STUDY[:5]) + "1,2,3\n" + "1,2," * 20 + "\n", "Expected"),
        ("\0" * 100 + "\n", "is not a study's table"),
    ],
)
def test_a_study_that_cannot_judge_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "seeds.csv").write_text(content)
    with pytest.raises(UserError, match=rf"^.*seeds\.csv .*{message}.*\Z"):
        load_study(tmp_path / "seeds.csv")


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(
    place=st.floats(0, 1),
    fewer=st.integers(0, 8),
    more=st.sampled_from(["inf", "1e999", ","]) | st.text("0189.-+einfa,\"'\n\r\0 ", max_size=8),
)
def test_a_changed_table_is_read_or_refused_in_one_line(folder, place, fewer, more):
    table = (ROOT / "data/published/post-20d.csv").read_text()
    start = int(place * len(table))
    (folder / "post-20d.csv").write_text(table[:start] + more + table[start + fewer :])
    try:
        found = load_published(folder, *OF_MNIST).losses
        assert len(found) == 81
        assert np.isfinite(found["published"]).all()
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data", [("fashion-mnist", OF_MNIST[1]), ("mnist", Binarize(mode="sample", threshold=128))]
)
def test_numbers_of_other_data_are_not_compared(data):
    index, losses = load_published(ROOT / "data/published", *data)
    assert losses.empty
    assert index.noise_kl is index.earlier_training is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: 20d", "model: 3d", r"tables\.yaml: tables\.0\.model is '3d'; it should be '20d'"),
        ("epochs: 10", "epochs: 9", r"post-20d\.csv should have one row per epoch, 1 to 9"),
        ("post-20d.csv", "gone.csv", r"cannot read the losses of .*gone\.csv"),
    ],
)
def test_a_mistake_in_tables_yaml_is_named(folder, old, new, message):
    path = folder / "tables.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_published(folder, *OF_MNIST)


def value(published, ours, source="post", epoch=10, split="test", model="20d") -> pd.DataFrame:
    row = {"model": model, "source": source, "epoch": epoch, "split": split}
    row |= {"published": published, "ours": ours, "difference": ours - published}
    return pd.DataFrame([row | {"tolerance": 0.25 if source == "notebook" else np.nan}])


def verdict(*arguments, replayed=("notebook",), **key) -> str:
    return judge(value(*arguments, **key), INTERVALS, (), replayed)["verdict"].item()


def test_within_the_tolerance_of_a_replayed_run_is_replayed():
    assert verdict(300.0, 300.2, source="notebook") == "replayed"
    assert verdict(300.0, 300.3, source="notebook") == "not reproducible as published"
    assert verdict(87.8, 90.0, source="notebook") == "consistent"
    assert verdict(87.8, np.nan, source="notebook") == "consistent"
    # Another seed's run has some losses within the tolerance.
    assert verdict(87.8, 87.9, source="notebook", replayed=()) == "consistent"


@pytest.mark.parametrize(("split", "epoch"), [("test", 10), ("noise", 0)])
def test_the_posts_values_are_judged_by_the_interval_alone(split, epoch):
    low, high = INTERVALS.loc[("20d", split, epoch), ["low", "high"]]
    key = {"split": split, "epoch": epoch}
    assert verdict(low + 0.001, 500.0, **key) == "consistent"
    for outside in (low - 0.001, high + 0.001):
        assert verdict(outside, outside, **key) == "not reproducible as published"
    for at, distance in ((high + 2, pytest.approx(2)), (high - 0.01, 0)):
        assert judge(value(at, 88.0, **key), INTERVALS)["outside"].item() == distance


@pytest.mark.parametrize(("near", "replayed"), [(9, True), (8, False)])
def test_a_run_is_replayed_with_more_losses_than_any_seed(near, replayed):
    """One seed of the study has 8 of the 10 losses within the tolerance, the other 3."""
    epochs = np.arange(10)
    key = {"model": "20d", "epoch": epochs, "source": "notebook", "split": "test"}
    values = {"published": 90.0, "tolerance": 0.25, "difference": np.where(epochs < near, 0.2, 0.3)}
    losses = [np.where(epochs < count, 89.8, 89.7) for count in (8, 3)]
    trial = {"model": "20d", "epoch": epochs, "train_loss": 0.0}
    trials = [trial | {"seed": seed, "test_loss": loss} for seed, loss in enumerate(losses)]
    seeds = pd.concat(map(pd.DataFrame, trials))
    found = count_replays(pd.DataFrame(key | values), seeds)["notebook"]
    assert (found["replayed"], found["within_tolerance"]) == (replayed, near)
    assert found["other_seeds"] == {"seeds": 2, "fewest": 3, "most": 8}
    (place,) = found["places"]
    assert (place["other_seeds_within"], place["farthest"]) == (pytest.approx(11 / 20), 0.3)


def test_only_verdicts_that_fall_or_are_gone_are_named():
    good = judge(value(88.0, 88.1, source="notebook", epoch=7), INTERVALS, (), ["notebook"])
    bad = judge(value(88.0, 98.1, source="notebook", epoch=7), INTERVALS)
    assert worse_than(good, good.to_dict("records")) == []
    assert worse_than(good, bad.to_dict("records")) == []
    (line,) = worse_than(bad, good.to_dict("records"))
    assert "20d test loss of epoch 7, notebook: published 88.0, ours 98.100: was replayed" in line
    both = pd.concat([good, value(88.0, 88.1)]).to_dict("records")
    assert worse_than(good, both) == ["1 values are no longer in data/published"]


def test_a_model_of_other_parameters_gets_no_verdict():
    values = pd.concat([value(87.8, 88.0), value(140.0, 141.0, model="2d")], ignore_index=True)
    judged = judge(values, INTERVALS, ["20d"])
    assert judged["verdict"].tolist() == ["other parameters", "consistent"]
    assert text.verdict_counts(judged)["other parameters ·"].tolist() == [1, 0]
    committed = [{**row, "verdict": "replayed"} for row in values.to_dict("records")]
    assert [line[:2] for line in worse_than(judged, committed)] == ["2d"]


def test_the_fit_finds_how_many_batches_made_a_table():
    """A table as of 130 batches of earlier training, between two numbers tried; and the post's."""
    shifted = pd.read_csv(ROOT / "studies/pretraining.csv")
    means = shifted.groupby(["batches", "epoch"])[["train_loss", "test_loss"]].mean()
    table = 0.8 * means.loc[125] + 0.2 * means.loc[150]
    found = fit_batches(shifted, by_split(table.reset_index(), "published"), INTERVALS)
    assert found["batches"] == pytest.approx(130, abs=1) and found["distance"] < 0.05
    assert found["inside"] == found["losses"] == 20
    post = PUBLISHED[(PUBLISHED["source"] == "post") & (PUBLISHED["model"] == "2d")]
    found = fit_batches(shifted, post, INTERVALS)
    assert found["distance"] < found["distance_without"] / 2
