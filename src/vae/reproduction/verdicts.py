"""A verdict on every published number."""

from pathlib import Path
from typing import Any

from vae.files import read_json
from vae.params import MODELS
from vae.reproduction.intervals import LOSSES
from vae.reproduction.published import (
    PUBLISHED_NOISE_KL,
    REPLAY_TOLERANCES,
    compare_losses,
    load_losses,
)

import numpy as np
import pandas as pd

REPLAYED, CONSISTENT, NOT_REPRODUCIBLE = VERDICTS = (
    "replayed",
    "consistent",
    "not reproducible as published",
)
# What tells a published value from the others.
KEY = ("source", "model", "split", "epoch")


def judge(values: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare_losses`, or others like them, with a verdict on each published value.

    Adds `n`, the number of the study's seeds, `low, high`, the bounds of its 99 % prediction interval,
    `outside`, how far the published value is from the nearer one in nats, 0 inside, and the `verdict`:

    - replayed: a notebook's loss that ours replays, within `REPLAY_TOLERANCES`;
    - consistent: inside the interval, so another seed may well give it;
    - not reproducible as published: outside.
    """
    keys = pd.MultiIndex.from_frame(values[["model", "split", "epoch"]])
    bounds = intervals.reindex(keys).set_axis(values.index)
    tolerance = [
        REPLAY_TOLERANCES.get((row.model, row.split), 0) if row.source == "notebook" else -1
        for row in values.itertuples()
    ]
    outside = np.maximum(
        bounds["low"] - values["published"], values["published"] - bounds["high"]
    ).clip(lower=0)
    verdict = np.select(
        [values["difference"].abs() <= tolerance, outside == 0],
        [REPLAYED, CONSISTENT],
        NOT_REPRODUCIBLE,
    )
    return values.assign(**bounds[["n", "low", "high"]], outside=outside, verdict=verdict)


def judge_run(
    metrics: Path, plots: Path, published: dict[str, dict[str, pd.DataFrame]], study: pd.DataFrame
) -> pd.DataFrame:
    """Every published value beside this run's, with its verdict (see `judge`). Raises UserError."""
    ours = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    values = compare_losses(ours, published)
    noise_kl = read_json(metrics / "anomaly.json")["noise_kl"]
    noise = {
        "model": "20d",
        "source": "post",
        "epoch": 0,
        "split": "noise",
        "published": PUBLISHED_NOISE_KL,
    }
    noise |= {"ours": noise_kl, "difference": noise_kl - PUBLISHED_NOISE_KL}
    return judge(pd.concat([values, pd.DataFrame([noise])], ignore_index=True), study)


def verdict_counts(values: pd.DataFrame) -> pd.DataFrame:
    """How many values of each source and model have each verdict: rows by both, a column for each verdict."""
    what = values["split"].where(values["split"] == "noise", "losses")
    counts = (
        values.groupby(["source", "model", what], sort=False)["verdict"]
        .value_counts()
        .unstack(fill_value=0)
    )
    return counts.reindex(columns=VERDICTS, fill_value=0)


def worse_than(values: pd.DataFrame, committed: list[dict[str, Any]]) -> list[str]:
    """A line for each value of which the verdict has fallen below the committed one."""
    before = {tuple(row[key] for key in KEY): row["verdict"] for row in committed}
    lines = []
    for row in values.itertuples():
        place = before.get(tuple(getattr(row, key) for key in KEY))
        if place and VERDICTS.index(row.verdict) > VERDICTS.index(place):
            ours = "missing" if pd.isna(row.ours) else f"{row.ours:.3f}"
            what = "noise KL" if row.split == "noise" else f"{row.split} loss of epoch {row.epoch}"
            lines.append(
                f"{row.model} {what}, {row.source}: published {row.published}, ours {ours}: "
                f"was {place}, is {row.verdict}"
            )
    return lines


def fit_batches(
    shifted: pd.DataFrame, post: pd.DataFrame, intervals: pd.DataFrame
) -> dict[str, float]:
    """The number of batches of earlier training that explains the post's 2-d table best.

    `shifted` are rows of `pretraining.shifted_losses`. Between the
    numbers of batches tried, the seeds' mean loss is interpolated; the best number has the least sum, over
    the 20 published losses, of squared distances in the study's deviations. Returns it with the root mean
    square distance in nats there and without earlier training, and how many of the 20 losses lie inside the
    study's 99 % intervals, moved to the means at that number.
    """
    study = intervals.loc["2d"]
    means = shifted.groupby(["batches", "epoch"])[LOSSES].mean()
    numbers = np.arange(shifted["batches"].min(), shifted["batches"].max() + 1)
    distances, halves, deviations = [], [], []
    for loss in LOSSES:
        for epoch, published in zip(post["epoch"], post[loss], strict=True):
            tried = means[loss].xs(epoch, level="epoch")
            distances.append(published - np.interp(numbers, tried.index, tried))
            of_seeds = study.loc[(loss.removesuffix("_loss"), epoch)]
            deviations.append(of_seeds["deviation"])
            halves.append((of_seeds["high"] - of_seeds["low"]) / 2)
    distance = np.array(distances)
    best = ((distance / np.array(deviations)[:, None]) ** 2).sum(axis=0).argmin()
    root_mean_square = np.sqrt((distance**2).mean(axis=0))
    return {
        "batches": int(numbers[best]),
        "distance": float(root_mean_square[best]),
        "distance_without": float(root_mean_square[0]),
        "inside": int((np.abs(distance[:, best]) <= halves).sum()),
        "losses": len(distance),
        "seeds": int(shifted["seed"].nunique()),
    }
