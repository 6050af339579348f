"""A verdict on every published number."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vae.files import read_json
from vae.params import MODELS, Params, flat, training_params
from vae.reproduction.published import LOSSES, Published, compare_losses

# From the best to the worst; the last where a model's parameters are not the study's.
VERDICTS = ["replayed", "consistent", "not reproducible as published", "other parameters"]
# What identifies a published value.
KEY = ["source", "model", "split", "epoch"]


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


def judge_run(
    published: Published,
    metrics: Path,
    ours: Mapping[str, pd.DataFrame],
    study: pd.DataFrame,
    others: Collection[str],
) -> pd.DataFrame:
    """Judge every published value beside this run's (see `judge`), `ours` being its losses by
    model. Raises UserError."""
    values = compare_losses(ours, published.losses)
    if noise := published.index.noise_kl:
        row = {"model": "20d", "source": noise.source, "epoch": 0, "split": "noise"}
        row |= {"published": noise.value, "tolerance": np.nan}
        row["ours"] = read_json(metrics / "anomaly.json", "noise_kl")["noise_kl"]
        row["difference"] = row["ours"] - noise.value
        values = pd.concat([values, pd.DataFrame([row])], ignore_index=True)
    return judge(values, study, others)


def replay_answer(values: pd.DataFrame) -> str:
    """Say how far the losses of `compare_losses` replay the runs they are of; nothing without
    tables that name a tolerance."""
    answers = []
    for source, of_run in values.dropna(subset="tolerance").groupby("source", sort=False):
        apart = of_run.assign(apart=of_run["difference"].abs()).groupby(
            ["model", "split"], sort=False
        )
        farthest = ", ".join(
            f"{model} {split} {row.apart:.3f} (tolerance {row.tolerance})"
            for (model, split), row in apart[["apart", "tolerance"]].max().iterrows()
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

    `shifted` are rows of studies/pretraining.csv. Between the numbers of batches tried, the seeds'
    mean loss is interpolated; the best number has the least sum, over the 20 published losses, of
    squared distances in the study's deviations. Returns it with the root mean square distance in
    nats there and without earlier training, and how many of the 20 losses lie inside the study's
    99 % intervals, moved to the means at that number.
    """
    published = post.set_index("epoch")[LOSSES].unstack()
    tried = shifted.groupby(["batches", "epoch"])[LOSSES].mean().unstack()
    means = tried.reindex(range(tried.index.min(), tried.index.max() + 1)).interpolate()
    distances = (published - means).T
    places = [("2d", loss.removesuffix("_loss"), epoch) for loss, epoch in published.index]
    spread = study.loc[places].set_axis(published.index)
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
