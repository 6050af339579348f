import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vae.reproduction.intervals import paired_differences, prediction_intervals


def study(values, model="20d", arm="defaults", seeds=None):
    """A row for each value, as the last epoch of a trial."""
    seeds = range(len(values)) if seeds is None else seeds
    return pd.DataFrame(
        [
            {
                "trial": f"{model}{arm}{seed}",
                "model": model,
                "arm": arm,
                "seed": seed,
                "epoch": 1,
                "loss": value,
            }
            for seed, value in zip(seeds, values, strict=True)
        ]
    )


def test_one_more_value_falls_into_the_prediction_interval_99_times_in_100():
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


def test_a_single_trial_has_a_mean_and_no_interval():
    (row,) = prediction_intervals(study([5.0]), ["loss"], ["model"]).to_dict("records")
    assert row["mean"] == 5.0
    assert np.isnan(row["low"])


def test_differences_are_paired_by_seed_so_that_the_seeds_own_spread_does_not_widen_them():
    base = np.array([90.0, 100.0, 110.0, 120.0])
    rows = pd.concat(
        [
            study(base),
            study((base + np.array([1.0, 1.1, 0.9, 1.0]))[::-1], arm="other", seeds=[3, 2, 1, 0]),
        ]
    )
    (row,) = paired_differences(rows, "loss").to_dict("records")
    assert (row["model"], row["arm"], row["n"]) == ("20d", "other", 4)
    assert row["difference"] == pytest.approx(1.0)
    expected = stats.ttest_1samp([1.0, 1.1, 0.9, 1.0], 0).confidence_interval(0.99)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))


def test_a_seed_that_only_one_arm_has_is_left_out():
    rows = pd.concat([study([1.0, 2.0, 3.0]), study([2.0, 3.0], arm="other")])
    assert paired_differences(rows, "loss")["n"].tolist() == [2]
