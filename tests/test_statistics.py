import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vae.reproduction.intervals import paired_differences, prediction_intervals


def study(values, arm="defaults", seeds=None):
    """One row per value, as the last epoch of a trial."""
    seeds = range(len(values)) if seeds is None else seeds
    rows = pd.DataFrame({"seed": seeds, "loss": values}).assign(model="20d", arm=arm, epoch=1)
    return rows.assign(trial=arm + rows["seed"].astype(str))


def test_a_prediction_interval_covers_99_of_100_further_values():
    values = np.random.default_rng(0).normal(100, 3, (2000, 21))
    samples = np.repeat(np.arange(2000), 20)
    rows = pd.DataFrame({"sample": samples, "loss": values[:, :20].ravel()})
    found = prediction_intervals(rows, ["loss"], ["sample"])
    inside = (found["low"] <= values[:, 20]) & (values[:, 20] <= found["high"])
    assert inside.mean() == pytest.approx(0.99, abs=0.007)


def test_the_interval_is_the_textbooks():
    (row,) = prediction_intervals(study([1.0, 2.0, 4.0]), ["loss"], ["model"]).to_dict("records")
    half = stats.t.ppf(0.995, 2) * np.std([1, 2, 4], ddof=1) * np.sqrt(1 + 1 / 3)
    assert (row["n"], row["low"], row["high"]) == pytest.approx((3, 7 / 3 - half, 7 / 3 + half))
    (single,) = prediction_intervals(study([5.0]), ["loss"], ["model"]).to_dict("records")
    assert single["mean"] == 5.0
    assert np.isnan(single["low"])


def test_differences_are_paired_by_seed():
    """So the seeds' own spread does not widen the interval; a seed of one arm alone is left out."""
    base, apart = np.array([90.0, 100.0, 110.0, 120.0]), np.array([1.0, 1.1, 0.9, 1.0])
    other = study((base + apart)[::-1], arm="other", seeds=[3, 2, 1, 0])
    rows = pd.concat([study([*base, 130.0]), other])
    (row,) = paired_differences(rows, "loss").to_dict("records")
    assert (row["model"], row["arm"], row["n"]) == ("20d", "other", 4)
    assert row["difference"] == pytest.approx(1.0)
    expected = stats.ttest_1samp(apart, 0).confidence_interval(0.99)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
