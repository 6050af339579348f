"""The report's text in Markdown: text.md, a Jinja template, has the prose; here are the tables."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from vae.decomposition import POINTS
from vae.losses import SPLITS
from vae.objective import LOG_VARIANCE
from vae.params import Params
from vae.reproduction.intervals import LEVEL
from vae.reproduction.verdicts import VERDICTS, Verdicts
from vae.scores import SCORE_NAMES

TEMPLATE = Path(__file__).with_name("text.md")
SIGNS = dict(zip(VERDICTS, "=≈≠·", strict=True))
NATS = "{:.3f}".format


def report_text(
    verdicts: Verdicts, losses: Mapping[str, pd.DataFrame], params: Params, **facts: Any
) -> str:
    """Write the report in Markdown; images in one paragraph belong together.

    `losses` are this run's by model. `facts` are the template's other names: latent `sizes` by
    model, `anomaly` and `likelihood` of metrics/, `labelled` (are there labels), `studied` (is the
    likelihood study of these models), `playable` (can the page run the models), `versions` of
    packages, `parameters` by group and `checksums` by file.
    """
    values = verdicts.values
    by_interval = values[values["verdict"].isin(VERDICTS[1:3])]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"nats": NATS, "json": json.dumps}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts,
        **verdicts._asdict(),
        params=params,
        counts=values["verdict"].value_counts().reindex(VERDICTS, fill_value=0),
        signs=SIGNS,
        verdict_table=verdict_counts(values),
        by_interval=by_interval,
        outside=by_interval[by_interval["outside"] > 0].sort_values("outside"),
        chance=(1 - LEVEL) * len(by_interval),
        replay_answer=replay_answer,
        replay_table=replay_table,
        loss_tables={model: loss_table(table, values, model) for model, table in losses.items()},
        last={model: table["test_loss"].iloc[-1] for model, table in losses.items()},
        points=POINTS,
        log_variance=LOG_VARIANCE,
        score_names=SCORE_NAMES,
    )


def verdict_counts(values: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts on each source's losses of a model, and on its noise image's KL."""
    losses = values["model"] + " losses"
    what = losses.where(values["split"] != "noise", "KL of the noise image")
    counts = pd.crosstab(values["source"] + ", " + what, values["verdict"])
    shown = [verdict for verdict in VERDICTS if verdict in counts or verdict != VERDICTS[3]]
    counts = counts.reindex(columns=shown, fill_value=0).rename_axis(None)
    counts.columns = pd.Index([f"{v} {SIGNS[v]}" for v in shown], name="Published values")
    return counts


def verdict_lines(verdicts: Verdicts) -> Iterator[str]:
    """Write the replays, the verdicts and the changed parameters as lines for a terminal."""
    if verdicts.values.empty:
        yield "data/published has no numbers of this data: the report has no verdicts"
    for source, found in verdicts.replays.items():
        yield f"{source}: {replay_answer(found)}"
        yield replay_table(found).to_string()
    # A title is a verdict and its sign.
    if len(counts := verdict_counts(verdicts.values)):
        yield counts.rename(columns=lambda title: title[-1]).to_string()
        yield " ".join(f"{title[-1]} {title[:-2]}" for title in counts)
    for name, change in verdicts.changes.items():
        yield f"changed parameter: {name} {change}"


def replay_answer(found: Mapping[str, Any]) -> str:
    """Say whether a run is replayed and by how many losses, from a result of `count_replays`."""
    verdict, others = "replayed" if found["replayed"] else "not replayed", found["other_seeds"]
    share = f"{found['within_tolerance']} of {found['losses']} losses"
    return f"{verdict}, {share}; other seeds reach {others['fewest']} to {others['most']}"


def replay_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """List the largest difference and the share of other seeds, by model and split."""
    places = pd.DataFrame(found["places"])
    columns = {
        "farthest, nats": places["farthest"].map(NATS),
        "tolerance": places["tolerance"],
        "other seeds within it": (100 * places["other_seeds_within"]).map("{:.0f} %".format),
    }
    table = pd.DataFrame(columns).set_axis(places["model"] + " " + places["split"])
    return table.rename_axis(columns="Losses")


def loss_table(losses: pd.DataFrame, values: pd.DataFrame, model: str) -> pd.DataFrame:
    """List one model's losses by epoch, with the published ones, their signs and differences."""
    columns = {}
    for split in SPLITS:
        columns[f"{split}, ours"] = losses.set_index("epoch")[f"{split}_loss"].map(NATS)
        shown = values[(values["model"] == model) & (values["split"] == split)]
        for source, rows in shown.set_index("epoch").groupby("source", sort=False):
            signs = rows["verdict"].map(SIGNS)
            columns[f"{split}, {source}"] = rows["published"].map(NATS) + " " + signs
            difference = rows["difference"].map("{:+.3f}".format, na_action="ignore")
            columns[f"{split}, ours - {source}"] = difference
    table = pd.concat(columns, axis=1).sort_index().fillna("-")
    return table.rename_axis(columns="Epoch")
