"""A verdict on every published number."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vae.files import read_json
from vae.params import MODELS, Params, flat, training_params
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import Index, by_split, compare_losses, load_losses, load_published

# From the best to the worst; the last where a model's parameters are not the study's.
VERDICTS = ["replayed", "consistent", "not reproducible as published", "other parameters"]
# What identifies a published value.
KEY = ["source", "model", "split", "epoch"]


class Judged(NamedTuple):
    """Every published value beside this run's, with its verdict: the rows of `judge`; and what its
    report says of them: see `other_parameters` and `fit_batches`."""

    index: Index
    values: pd.DataFrame
    others: list[str]
    earlier: dict[str, float] | None


def judge_run(params: Params, published: Path, studies: Path, plots: Path, metrics: Path) -> Judged:
    """Judge every value in the folder `published` beside this run's losses and noise KL, by the
    tables in `studies`. Raises UserError."""
    index, tables = load_published(published, params.download.dataset, params.binarize)
    ours = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    values = compare_losses(ours, tables)
    if noise := index.noise_kl:
        row = {"model": "20d", "source": noise.source, "epoch": 0, "split": "noise"}
        row |= {"published": noise.value, "tolerance": np.nan}
        row["ours"] = read_json(metrics / "anomaly.json", "noise_kl")["noise_kl"]
        row["difference"] = row["ours"] - noise.value
        values = pd.concat([values, pd.DataFrame([row])], ignore_index=True)
    study = load_intervals(studies / "seeds.csv")
    others = other_parameters(params, studies / "seeds.json")
    earlier = None
    if index.earlier_training and "2d" not in others:
        explained = (tables["source"] == index.earlier_training) & (tables["model"] == "2d")
        shifted = load_losses(studies / "pretraining.csv", "seed", "batches")
        earlier = fit_batches(shifted, tables[explained], study)
    return Judged(index, judge(values, study, others), others, earlier)


def replayed(values: pd.DataFrame) -> pd.Series:
    """Say of each row of `compare_losses` whether ours replays it, as the notebook's."""
    return values["difference"].abs() <= values["tolerance"]


def other_parameters(params: Params, study: Path) -> list[str]:
    """Name the models that `params` would train otherwise than the study did, beside the seed.

    `study` is its summary in JSON. Raises UserError.
    """
    studied = read_json(study, "parameters")["parameters"]
    return [name for name in MODELS if seedless(params, name) != studied[name]]


def seedless(params: Params, name: str) -> dict[str, str]:
    """The flat parameters of model `name`'s training that decide its losses, beside the seed."""
    values = flat(training_params(params, name))
    drawn = ("figures.gray_levels", "figures.grid_size", "figures.grid_quantiles")
    return {key: value for key, value in values.items() if key not in ("seed", *drawn)}


def judge(
    values: pd.DataFrame, intervals: pd.DataFrame, others: Collection[str] = ()
) -> pd.DataFrame:
    """Add to the rows of `compare_losses`, or others like them, a `verdict`, and what it rests on.

    `n` is the number of the study's seeds, `low, high` are the bounds of its 99 % prediction
    interval, `outside` is how far the published value is from the nearer one in nats, 0 inside.

    - replayed: within the tolerance of its own run's replay, as a loss of the notebook;
    - consistent: inside the interval, so another seed may well give it;
    - not reproducible as published: outside;
    - other parameters: of one of the models `others`, which no seed of the study can judge.
    """
    table = values.join(intervals[["n", "low", "high"]], on=["model", "split", "epoch"])
    below, above = table["low"] - table["published"], table["published"] - table["high"]
    outside = np.maximum(below, above).clip(lower=0)
    cases = [values["model"].isin(others), replayed(values), outside == 0]
    verdict = np.select(cases, [VERDICTS[3], *VERDICTS[:2]], VERDICTS[2])
    return table.assign(outside=outside, verdict=verdict)


def replay_answer(values: pd.DataFrame) -> str:
    """Say how far the losses of `judge` replay the runs they are of; nothing of tables that name no
    tolerance, and of models of other parameters."""
    answers = []
    values = values[values["verdict"] != VERDICTS[3]].dropna(subset="tolerance")
    values = values.assign(apart=values["difference"].abs())
    for source, of_run in values.groupby("source", sort=False):
        places = of_run.groupby(["model", "split"], sort=False)[["apart", "tolerance"]].max()
        farthest = ", ".join(
            f"{model} {split} {row.apart:.3f} (tolerance {row.tolerance})"
            for (model, split), row in places.iterrows()
        )
        share = f"{replayed(of_run).sum()} of {len(of_run)} losses replayed"
        answers.append(f"the {source}'s run: {share}; farthest apart, in nats: {farthest}")
    return "\n".join(answers)


def worse_than(values: pd.DataFrame, committed: list[dict[str, Any]]) -> list[str]:
    """Describe each value of which the verdict has fallen below the committed one, in a line."""
    before = pd.DataFrame(committed, columns=[*KEY, "verdict"]).set_index(KEY)["verdict"]
    before = before.rename("before")
    gone = before.index.difference(pd.MultiIndex.from_frame(values[KEY]))
    lines = [f"{len(gone)} values are no longer in data/published"] if len(gone) else []
    for row in values.join(before, on=KEY, how="inner").itertuples():
        if row.verdict != VERDICTS[3] and VERDICTS.index(row.verdict) > VERDICTS.index(row.before):
            what = "noise KL" if row.split == "noise" else f"{row.split} loss of epoch {row.epoch}"
            ours = "missing" if pd.isna(row.ours) else f"{row.ours:.3f}"
            values = f"published {row.published}, ours {ours}: was {row.before}, is {row.verdict}"
            lines.append(f"{row.model} {what}, {row.source}: {values}")
    return lines


def fit_batches(shifted: pd.DataFrame, post: pd.DataFrame, study: pd.DataFrame) -> dict[str, float]:
    """Find the number of batches of earlier training that explains the post's 2-d table best.

    `shifted` are rows of studies/pretraining.csv, `post` those of `Published.losses`. Between the
    numbers of batches tried, the seeds' mean loss is interpolated; the best number has the least
    sum, over the 20 published losses, of squared distances in the study's deviations. Returns it
    with the root mean square distance in nats there and without earlier training, and how many of
    the 20 losses lie inside the study's 99 % intervals, moved to the means at that number.
    """
    published = post.set_index(["split", "epoch"])["published"]
    losses = by_split(shifted, "loss", "batches")
    tried = losses.pivot_table("loss", "batches", ["split", "epoch"])[published.index]
    means = tried.reindex(range(tried.index.min(), tried.index.max() + 1)).interpolate()
    distances = (published - means).T
    spread = study.xs("2d").reindex(published.index)
    best = (distances.div(spread["deviation"], axis=0) ** 2).sum().idxmin()
    root_mean_square = np.sqrt((distances**2).mean())
    inside = distances[best].abs() <= (spread["high"] - spread["low"]) / 2
    return {
        "batches": int(best),
        "distance": float(root_mean_square[best]),
        "distance_without": float(root_mean_square.iloc[0]),
        "inside": int(inside.sum()),
        "losses": len(published),
        "seeds": int(shifted["seed"].nunique()),
    }
