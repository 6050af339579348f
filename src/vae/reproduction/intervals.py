"""What many seeds say: intervals, and differences between arms."""

import io
from pathlib import Path

from vae.cli import UserError
from vae.params import MODELS

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LOSSES = ["train_loss", "test_loss"]
LEVEL = 0.99
# Seeds of each model that a study needs to judge by.
SEEDS = 20
# The arm in which only the seed differs from params.yaml.
DEFAULTS = "defaults"
COLUMNS = ["trial", "model", "arm", "seed", "epoch", "noise_kl", "train_loss", "test_loss"]


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


def read_rows(path: Path) -> pd.DataFrame:
    """The finished trials of a CSV; what a kill left of another is left out. Empty if there is no file.

    Raises UserError when it is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1]
        if not lines:
            return pd.DataFrame(columns=COLUMNS)
        table = pd.read_csv(io.StringIO(lines), dtype={"trial": str})
        table[
            COLUMNS
        ]  # which raises KeyError where one is missing, as the next line ValueError on a text
        table.drop(columns=COLUMNS[:3]).apply(pd.to_numeric)
        finished = table.loc[table["noise_kl"].notna(), "trial"]
        return table[table["trial"].isin(finished)].drop_duplicates(["trial", "epoch"])
    except FileNotFoundError:
        return pd.DataFrame(columns=COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is no table of a study ({reason}); name another, or delete it"
        ) from None


def load_intervals(path: Path) -> pd.DataFrame:
    """A study's 99 % prediction intervals, `low, high, mean, deviation, n` by model, split and epoch; the
    noise image's KL is the 20-d model's split "noise" in epoch 0. Raises UserError."""
    rows = read_rows(path)
    rows = rows[rows["arm"] == DEFAULTS]
    for model in MODELS:
        count = rows.loc[rows["model"] == model, "seed"].nunique()
        if count < SEEDS:
            raise UserError(
                f"{path} has {count} seeds of the {model} model; {SEEDS} are needed: make study"
            )
    losses = prediction_intervals(rows, LOSSES, ["model", "epoch"])
    losses["split"] = losses["column"].str.removesuffix("_loss")
    noise = prediction_intervals(rows[rows["model"] == "20d"], ["noise_kl"], ["model"])
    table = pd.concat([losses, noise.assign(split="noise", epoch=0)])
    return table.set_index(["model", "split", "epoch"])
