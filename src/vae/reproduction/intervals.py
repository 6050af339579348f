"""Statistics over many seeds: prediction intervals, and differences between arms."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from vae.cli import UserError, one_line
from vae.losses import LOSSES, read_table
from vae.params import MODELS

LEVEL = 0.99
# A study needs so many seeds of each model before numbers are judged by it.
SEEDS = 20
# The arm in which only the seed differs from params.yaml.
DEFAULTS = "defaults"
TYPES = {"trial": str, "model": str, "arm": str, "seed": int, "epoch": int}
TYPES |= dict.fromkeys([*LOSSES, "noise_kl"], float)


def prediction_intervals(
    rows: pd.DataFrame, columns: list[str], by: list[str], more: int = 1
) -> pd.DataFrame:
    """Compute the mean of each column in each group of rows, and a 99 % interval.

    Columns: `by, column, n, mean, deviation, low, high`. The interval is that of one more value or,
    if `more` is 0, of the mean of the `n` values: mean +- t s sqrt(more + 1/n), with Student's t of
    n - 1 degrees of freedom. It is NaN for a single value.
    """
    by = [*by, "column"]
    values = rows.melt(by[:-1], columns, "column").dropna(subset="value")
    groups = values.groupby(by, sort=False)["value"]
    table = groups.agg(n="count", mean="mean", deviation="std").reset_index()
    t = stdtrit(table["n"] - 1, (1 + LEVEL) / 2)
    half = t * table["deviation"] * np.sqrt(more + 1 / table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def paired_differences(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Compare each arm with the model's first arm, in the last epoch and seed by seed.

    Columns: `model, arm, n, difference, low, high`; the bounds are the 99 % confidence interval of
    the mean of the paired differences.
    """
    last = rows[rows["epoch"] == rows.groupby("trial")["epoch"].transform("max")]
    parts = []
    for model, of_model in last.groupby("model", sort=False):
        arms = of_model.pivot(index="seed", columns="arm", values=column)[of_model["arm"].unique()]
        apart = arms.sub(arms.iloc[:, 0], axis=0).iloc[:, 1:]
        parts.append(apart.melt(value_name="difference").assign(model=model))
    table = prediction_intervals(pd.concat(parts), ["difference"], ["model", "arm"], more=0)
    return table.drop(columns=["column", "deviation"]).rename(columns={"mean": "difference"})


def read_rows(path: Path) -> pd.DataFrame:
    """Read the finished trials of a study; an empty table if there is no file.

    A line cut off by a kill is left out. Raises UserError if the file is not a study's.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole_lines = text[: text.rfind("\n") + 1]
        table = read_table(io.StringIO(whole_lines or ",".join(TYPES)), TYPES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a study's table ({one_line(error)}); name another file, or delete it"
        ) from None
    finished = table.loc[table["noise_kl"].notna(), "trial"]
    return table[table["trial"].isin(finished)].drop_duplicates(["trial", "epoch"])


def load_study(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a study's trials with default parameters, and their 99 % prediction intervals.

    The intervals are indexed by model, split and epoch; the noise images' KL is the split "noise"
    in epoch 0. Raises UserError if there are fewer seeds than `SEEDS`.
    """
    rows = read_rows(path)
    rows = rows[rows["arm"] == DEFAULTS]
    seeds = rows.groupby("model")["seed"].nunique().reindex(MODELS, fill_value=0)
    if seeds.min() < SEEDS:
        found = f"{path} has {seeds.min()} seeds of the {seeds.idxmin()} model"
        raise UserError(f"{found}; at least {SEEDS} are needed: run `make study`")
    table = prediction_intervals(rows, [*LOSSES, "noise_kl"], ["model", "epoch"])
    table["split"] = table["column"].replace(r"_.*", "", regex=True)
    table["epoch"] = table["epoch"].where(table["split"] != "noise", 0)
    return rows, table.set_index(["model", "split", "epoch"])
