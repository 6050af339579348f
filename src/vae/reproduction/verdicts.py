"""A verdict on every published number."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from vae.files import read_json
from vae.params import MODELS, Params, flat, training_params
from vae.reproduction.published import LOSSES, PUBLISHED_NOISE_KL, compare_losses, load_losses

import numpy as np
import pandas as pd

# From the best to the worst; the last where a model's parameters are not the study's.
VERDICTS = ["replayed", "consistent", "not reproducible as published", "other parameters"]
# A model of these is compared with the post's: its data set, and its round(x / 255).
DATASET, BINARIZED = "mnist", ("threshold", 128)
# What identifies a published value.
KEY = ["source", "model", "split", "epoch"]
# How far a replay of the notebook's run may be from it, by model and split, in nats per image:
# rounding differs between processors and versions of PyTorch, and grows in training.
REPLAY_TOLERANCES = {"20d": {"train": 0.05, "test": 0.25}, "2d": {"train": 0.6, "test": 1.0}}


def replayed(values: pd.DataFrame) -> pd.Series:
    """Say of each row of `compare_losses` whether it is a notebook's loss that ours replays."""
    places = zip(values["model"], values["split"], strict=True)
    tolerance = [REPLAY_TOLERANCES[model].get(split, 0) for model, split in places]
    return (values["source"] == "notebook") & (values["difference"].abs() <= tolerance)


def other_parameters(params: Params, study: Path) -> list[str]:
    """Name the models that `params` would train otherwise than the study did, beside the seed.

    `study` is its summary in JSON. Raises UserError.
    """
    binarized = params.binarize.mode, params.binarize.threshold
    if params.download.dataset != DATASET or binarized != BINARIZED:
        return list(MODELS)
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

    - replayed: a notebook's loss that ours replays, within `REPLAY_TOLERANCES`;
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
    metrics: Path,
    plots: Path,
    published: pd.DataFrame,
    study: pd.DataFrame,
    others: Collection[str],
) -> pd.DataFrame:
    """Judge every published value beside this run's (see `judge`). Raises UserError."""
    ours = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    noise = pd.DataFrame([{"model": "20d", "source": "post", "epoch": 0, "split": "noise"}])
    noise["published"] = PUBLISHED_NOISE_KL
    noise["ours"] = read_json(metrics / "anomaly.json", "noise_kl")["noise_kl"]
    noise["difference"] = noise["ours"] - noise["published"]
    values = pd.concat([compare_losses(ours, published), noise], ignore_index=True)
    return judge(values, study, others)


def replay_answer(values: pd.DataFrame) -> str:
    """Say how far the losses of `compare_losses` replay the notebook's run."""
    notebook = values[values["source"] == "notebook"]
    apart = notebook["difference"].abs().groupby([notebook["model"], notebook["split"]], sort=False)
    farthest = ", ".join(
        f"{model} {split} {distance:.3f} (tolerance {REPLAY_TOLERANCES[model][split]})"
        for (model, split), distance in apart.max().items()
    )
    share = f"{replayed(notebook).sum()} of {len(notebook)} losses replayed"
    return f"{share}; farthest apart, in nats: {farthest}"


def worse_than(values: pd.DataFrame, committed: list[dict[str, Any]]) -> list[str]:
    """Describe each value of which the verdict has fallen below the committed one, in a line."""
    before = pd.DataFrame(committed).set_index(KEY)["verdict"].rename("before")
    lines = []
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
