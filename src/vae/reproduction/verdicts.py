"""A verdict on every published number, and on the run as a whole."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vae.files import read_json, records
from vae.losses import LOSSES, by_split, load_losses
from vae.params import MODELS, Params, flat, training_params
from vae.reproduction.intervals import load_study
from vae.reproduction.published import Index, compare_losses, load_published

# From best to worst; the last one is for models whose parameters are not the study's.
VERDICTS = ["replayed", "consistent", "not reproducible as published", "other parameters"]
# What identifies a published value.
KEY = ["source", "model", "split", "epoch"]


class Verdicts(NamedTuple):
    """A run beside the published numbers.

    `values` are the rows of `judge`, `intervals` those of `load_study`, `replays` the result of
    `count_replays`, `others` the models of other parameters than the study's, `changes` all
    parameters that differ from the committed results', and `earlier` the result of `fit_batches`.
    """

    index: Index
    values: pd.DataFrame
    intervals: pd.DataFrame
    replays: dict[str, dict[str, Any]]
    others: list[str]
    changes: dict[str, str]
    earlier: dict[str, float] | None


def judge_run(
    params: Params, published: Path, studies: Path, plots: Path, metrics: Path
) -> Verdicts:
    """Judge the published values against this run's losses and noise KL. Raises UserError."""
    tables = load_published(published, params.download.dataset, params.binarize)
    ours = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    noise_kl = read_json(metrics / "anomaly.json", "noise_kl")["noise_kl"]
    values = compare_losses(ours, noise_kl, tables.losses)
    trials, intervals = load_study(studies / "seeds.csv")
    study = read_json(studies / "seeds.json", "parameters")["parameters"]
    others = [model for model in MODELS if seedless(params, model) != study[model]]
    judged = values[~values["model"].isin(others)]
    replays = count_replays(judged, trials[trials["seed"] != params.seed])
    replayed = [source for source, found in replays.items() if found["replayed"]]
    earlier = None
    if tables.index.earlier_training and "2d" not in others:
        losses = tables.losses[tables.losses["source"] == tables.index.earlier_training]
        shifted = load_losses(studies / "pretraining.csv", "seed", "batches")
        earlier = fit_batches(shifted, losses[losses["model"] == "2d"], intervals)
    values = judge(values, intervals, others, replayed)
    changes = changed_parameters(params, study, tables.index)
    return Verdicts(tables.index, values, intervals, replays, others, changes, earlier)


def within_tolerance(values: pd.DataFrame) -> pd.Series:
    """Say for each row of `compare_losses` whether our loss is within the tolerance of a replay."""
    return values["difference"].abs() <= values["tolerance"]


def count_replays(values: pd.DataFrame, trials: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Count how many losses are within the tolerance of a replay, by source.

    `values` are rows of `compare_losses`, `trials` those of a study's other seeds. The source's run
    is replayed if more losses are within the tolerance than with any of these seeds. `places` has
    the largest difference, in nats, and the share of the other seeds' losses within the tolerance.
    """
    values = values.dropna(subset="tolerance")
    losses = by_split(trials[["model", "seed", "epoch", *LOSSES]], "theirs", "model", "seed")
    pairs = values.merge(losses, on=["model", "split", "epoch"])
    pairs["within"] = (pairs["theirs"] - pairs["published"]).abs() <= pairs["tolerance"]
    found = {}
    for source, of_run in values.groupby("source", sort=False):
        of_seeds = pairs[pairs["source"] == source]
        counts = of_seeds.groupby("seed")["within"].sum()
        farthest = of_run.assign(farthest=of_run["difference"].abs())
        places = farthest.groupby(["model", "split"], sort=False)[["farthest", "tolerance"]].max()
        places["other_seeds_within"] = of_seeds.groupby(["model", "split"])["within"].mean()
        within, fewest, most = int(within_tolerance(of_run).sum()), counts.min(), counts.max()
        found[source] = {
            "losses": len(of_run),
            "within_tolerance": within,
            "replayed": bool(within > most),
            "other_seeds": {"seeds": len(counts), "fewest": int(fewest), "most": int(most)},
            "places": records(places.reset_index()),
        }
    return found


def changed_parameters(
    params: Params, study: dict[str, dict[str, str]], index: Index
) -> dict[str, str]:
    """Describe each parameter, by its flat name, that differs from those of the study or index."""
    ours = flat({name.replace("_", "-"): group for name, group in params})
    data = {"download.dataset": index.data.dataset, "binarize.mode": index.data.mode}
    data["binarize.threshold"] = index.data.threshold
    theirs = {name: str(value) for name, value in (data | index.parameters).items()}
    for model in MODELS:
        theirs |= {k.replace("model.", f"train-{model}."): v for k, v in study[model].items()}
    return {
        name: f"{ours.get(name)} instead of {value}"
        for name, value in theirs.items()
        if ours.get(name) != value
    }


def seedless(params: Params, name: str) -> dict[str, str]:
    """Return the flat parameters that decide the losses of model `name`, apart from the seed."""
    values = flat(training_params(params, name))
    unused = ("seed", "figures.gray_levels", "figures.grid_size", "figures.grid_quantiles")
    return {key: value for key, value in values.items() if key not in unused}


def judge(
    values: pd.DataFrame,
    intervals: pd.DataFrame,
    others: Collection[str] = (),
    replayed: Collection[str] = (),
) -> pd.DataFrame:
    """Add a `verdict` to the rows of `compare_losses`, with the numbers that it rests on.

    `n` is the number of the study's seeds, `low` and `high` bound its 99 % prediction interval, and
    `outside` is how far the published value lies outside, in nats.

    - replayed: within the tolerance of a replay, and the run of its source is `replayed`;
    - consistent: inside the interval, so another seed may well give it;
    - not reproducible as published: outside;
    - other parameters: its model is in `others`, which the study cannot judge.
    """
    table = values.join(intervals[["n", "low", "high"]], on=["model", "split", "epoch"])
    below, above = table["low"] - table["published"], table["published"] - table["high"]
    outside = np.maximum(below, above).clip(lower=0)
    as_run = values["source"].isin(replayed) & within_tolerance(values)
    cases = [values["model"].isin(others), as_run, outside == 0]
    verdict = np.select(cases, [VERDICTS[3], *VERDICTS[:2]], VERDICTS[2])
    return table.assign(outside=outside, verdict=verdict)


def worse_than(values: pd.DataFrame, committed: list[dict[str, Any]]) -> list[str]:
    """Describe each value whose verdict has fallen below the committed one, in one line."""
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

    `shifted` are rows of studies/pretraining.csv, `post` those of `Published.losses`, `study` the
    intervals. The best number has the least sum of squared distances from the seeds' mean losses,
    interpolated between the numbers tried, in the study's standard deviations. `distance` is the
    root mean square in nats; `inside` counts losses inside the intervals moved to those means.
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
