import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from vae.losses import by_split
from vae.params import Binarize
from vae.report import text
from vae.reproduction.intervals import load_study
from vae.reproduction.published import load_published
from vae.reproduction.verdicts import count_replays, fit_batches, judge, worse_than


@pytest.fixture(scope="module")
def intervals() -> pd.DataFrame:
    return load_study(ROOT / "studies/seeds.csv")[1]


@pytest.fixture(scope="module")
def published():
    binarized = Binarize(mode="threshold", threshold=128)
    return load_published(ROOT / "data/published", "mnist", binarized)


def value(published, ours, source="post", epoch=10, split="test", model="20d") -> pd.DataFrame:
    row = {"model": model, "source": source, "epoch": epoch, "split": split}
    row["tolerance"] = 0.25 if source == "notebook" else np.nan
    row |= {"published": published, "ours": ours, "difference": ours - published}
    return pd.DataFrame([row])


def verdict(intervals, *arguments, replayed=("notebook",), **key) -> str:
    return judge(value(*arguments, **key), intervals, (), replayed)["verdict"].item()


def test_within_the_tolerance_of_a_replayed_run_is_replayed(intervals):
    assert verdict(intervals, 300.0, 300.2, source="notebook") == "replayed"
    assert verdict(intervals, 300.0, 300.3, source="notebook") == "not reproducible as published"
    assert verdict(intervals, 87.8, 90.0, source="notebook") == "consistent"
    assert verdict(intervals, 87.8, float("nan"), source="notebook") == "consistent"
    # Another seed's run has some losses within the tolerance.
    assert verdict(intervals, 87.8, 87.9, source="notebook", replayed=()) == "consistent"


@pytest.mark.parametrize(("split", "epoch"), [("test", 10), ("noise", 0)])
def test_the_posts_values_are_judged_by_the_interval_alone(intervals, split, epoch):
    low, high = intervals.loc[("20d", split, epoch), ["low", "high"]]
    key = {"split": split, "epoch": epoch}
    assert verdict(intervals, low + 0.001, 500.0, **key) == "consistent"
    for outside in (low - 0.001, high + 0.001):
        assert verdict(intervals, outside, outside, **key) == "not reproducible as published"
    for at, distance in ((high + 2, pytest.approx(2)), (high - 0.01, 0)):
        assert judge(value(at, 88.0, **key), intervals)["outside"].item() == distance


@pytest.mark.parametrize(("near", "replayed"), [(9, True), (8, False)])
def test_a_run_is_replayed_with_more_losses_than_any_seed(near, replayed):
    """One seed of the study has 8 of the 10 losses within the tolerance, the other 3."""
    losses = np.arange(10.0)
    values = pd.DataFrame({"model": "20d", "source": "notebook", "split": "test"}, range(10))
    values = values.assign(epoch=range(10), published=losses, tolerance=0.25)
    values["difference"] = np.where(np.arange(10) < near, 0.2, 0.3)
    seeds = pd.concat(
        pd.DataFrame({"model": "20d", "seed": seed, "epoch": range(10), "train_loss": 0.0}).assign(
            test_loss=losses + np.where(np.arange(10) < count, -0.2, -0.3)
        )
        for seed, count in ((0, 8), (1, 3))
    )
    found = count_replays(values, seeds)["notebook"]
    assert (found["replayed"], found["within_tolerance"]) == (replayed, near)
    assert found["other_seeds"] == {"seeds": 2, "fewest": 3, "most": 8}
    (place,) = found["places"]
    assert (place["other_seeds_within"], place["farthest"]) == (pytest.approx(11 / 20), 0.3)


def test_only_a_verdict_that_falls_is_named(intervals):
    good = judge(value(88.0, 88.1, source="notebook", epoch=7), intervals, (), ["notebook"])
    bad = judge(value(88.0, 98.1, source="notebook", epoch=7), intervals)
    assert worse_than(good, good.to_dict("records")) == []
    assert worse_than(good, bad.to_dict("records")) == []
    (line,) = worse_than(bad, good.to_dict("records"))
    assert line.startswith(
        "20d test loss of epoch 7, notebook: published 88.0, ours 98.100: was replayed"
    )


def test_a_committed_value_that_is_gone_is_counted(intervals):
    both = [judge(value(88.0, 88.1, epoch=epoch), intervals) for epoch in (7, 8)]
    committed = pd.concat(both).to_dict("records")
    assert worse_than(both[0], committed) == ["1 values are no longer in data/published"]


def test_a_model_of_other_parameters_gets_no_verdict(intervals):
    values = pd.concat([value(87.8, 88.0), value(140.0, 141.0, model="2d")], ignore_index=True)
    judged = judge(values, intervals, ["20d"])
    assert judged["verdict"].tolist() == ["other parameters", "consistent"]
    assert text.verdict_counts(judged)["other parameters ·"].tolist() == [1, 0]
    committed = [{**row, "verdict": "replayed"} for row in values.to_dict("records")]
    assert [line[:2] for line in worse_than(judged, committed)] == ["2d"]


def test_the_fit_finds_how_many_batches_made_a_table(intervals, published):
    """A table as of 130 batches of earlier training, between two numbers tried; and the post's."""
    shifted = pd.read_csv(ROOT / "studies/pretraining.csv")
    means = shifted.groupby(["batches", "epoch"])[["train_loss", "test_loss"]].mean()
    table = 0.8 * means.loc[125] + 0.2 * means.loc[150]
    post = by_split(table.reset_index(), "published")
    found = fit_batches(shifted, post, intervals)
    assert found["batches"] == pytest.approx(130, abs=1)
    assert found["distance"] < 0.05
    assert found["inside"] == found["losses"] == 20
    losses = published.losses[published.losses["source"] == "post"]
    found = fit_batches(shifted, losses[losses["model"] == "2d"], intervals)
    assert found["distance"] < found["distance_without"] / 2
