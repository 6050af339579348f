"""The report's text, in Markdown: text.md, a Jinja template, has the prose; here are the tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from vae.decomposition import POINTS
from vae.params import Params
from vae.reproduction.intervals import LEVEL
from vae.reproduction.published import SPLITS
from vae.reproduction.verdicts import VERDICTS, Judged, replay_answer
from vae.scores import SCORE_NAMES

TEMPLATE = Path(__file__).with_name("text.md")
SIGNS = dict(zip(VERDICTS, "=≈≠·", strict=True))
NATS = "{:.3f}".format


def report_text(
    judged: Judged, losses: Mapping[str, pd.DataFrame], params: Params, **facts: Any
) -> str:
    """Write the report in Markdown; images in one paragraph belong together.

    `losses` are this run's by model; `facts` are more by their names in text.md: the models'
    latent `sizes`, `anomaly` and `likelihood` of metrics/, whether there are labels (`labelled`)
    and a likelihood study of these very models (`studied`), whether the page can run the models
    (`playable`), `versions` of packages, `parameters` by group, MD5 `sums` by file.
    """
    values = judged.values
    by_interval = values[values["verdict"].isin(VERDICTS[1:3])]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"nats": NATS, "json": json.dumps}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts,
        **judged._asdict(),
        params=params,
        counts=values["verdict"].value_counts().reindex(VERDICTS, fill_value=0),
        signs=SIGNS,
        verdict_table=verdict_counts(values),
        by_interval=by_interval,
        outside=by_interval[by_interval["outside"] > 0].sort_values("outside"),
        chance=(1 - LEVEL) * len(by_interval),
        replay=replay_answer(values),
        loss_tables={model: loss_table(table, values, model) for model, table in losses.items()},
        points=POINTS,
        score_names=SCORE_NAMES,
    )


def verdict_counts(values: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts on each source's losses of a model, and on its noise image's KL."""
    losses = values["model"] + " losses"
    what = losses.where(values["split"] != "noise", "KL of the noise image")
    counts = pd.crosstab(values["source"] + ", " + what, values["verdict"])
    shown = [verdict for verdict in VERDICTS if verdict in counts or verdict != VERDICTS[3]]
    counts = counts.reindex(columns=shown, fill_value=0).rename_axis(index=None)
    return counts.rename_axis(columns="Published values").rename(
        columns=lambda v: f"{v} {SIGNS[v]}"
    )


def loss_table(losses: pd.DataFrame, values: pd.DataFrame, model: str) -> pd.DataFrame:
    """Write one model's losses by epoch, ours beside each published one and its verdict."""
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
