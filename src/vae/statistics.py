"""What many seeds say: intervals, and differences between arms."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LOSSES = ["train_loss", "test_loss"]
LEVEL = 0.99


def prediction_intervals(rows: pd.DataFrame, columns: list[str], by: list[str]) -> pd.DataFrame:
    """For each group of a study's rows and each of the columns: `n, mean, deviation, low, high`.

    Low and high bound the two-sided 99 % interval in which one more trial falls:
    mean +- t s sqrt(1 + 1/n), with the t of n - 1 degrees of freedom; NaN for a single trial.
    """
    long = rows.melt(by, columns, "column").dropna(subset="value")
    groups = long.groupby([*by, "column"], sort=False)["value"]
    table = groups.agg(n="count", mean="mean", deviation="std").reset_index()
    half = _t(table["n"]) * table["deviation"] * np.sqrt(1 + 1 / table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def paired_differences(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The last epoch's difference of each arm to the first one, seed by seed, for each model.

    Columns: `model, arm, n, difference, low, high`; the bounds are the 99 % confidence interval of the mean
    difference, which the seeds' own differences do not widen.
    """
    last = rows[rows["epoch"] == rows.groupby("trial")["epoch"].transform("max")]
    found = []
    for model, of_model in last.groupby("model", sort=False):
        arms = of_model.pivot(index="seed", columns="arm", values=column)[of_model["arm"].unique()]
        for arm in arms.columns[1:]:
            apart = (arms[arm] - arms.iloc[:, 0]).dropna()
            half = _t(len(apart)) * apart.std() / np.sqrt(len(apart))
            mean = apart.mean()
            found.append((model, arm, len(apart), mean, mean - half, mean + half))
    return pd.DataFrame(found, columns=["model", "arm", "n", "difference", "low", "high"])


def _t(n: pd.Series | int) -> pd.Series | float:
    """The two-sided quantile of Student's t for `n` values; NaN for one."""
    return stdtrit(np.maximum(n, 1) - 1, (1 + LEVEL) / 2)
