"""The report's text, in Markdown: text.md, a Jinja template, has the prose; here are the tables."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from vae.decomposition import POINTS
from vae.params import MODELS, Params
from vae.reproduction.intervals import LEVEL
from vae.reproduction.published import SPLITS, Index
from vae.reproduction.verdicts import VERDICTS, replay_answer
from vae.scores import SCORE_NAMES

TEMPLATE = Path(__file__).with_name("text.md")
SIGNS = dict(zip(VERDICTS, "=≈≠·", strict=True))
OTHERS = (
    "**A model of this run was trained with other parameters than the study's: its published "
    "numbers stand beside it without a verdict (·).**\n\n"
)
# With what the likelihood of MNIST may be compared, by how pixels were binarized.
COMPARABLE = {
    "threshold": "It may be compared with other models of MNIST with pixels of at least {} set to "
    "1. It may not be compared with the numbers of most papers, which are of Larochelle's fixed "
    "binarization or of pixels drawn anew at each use: those images have other, noisier pixels.",
    "sample": "Pixels were drawn once, by the seed. Larochelle's fixed binarization, which many "
    "papers use, was drawn in the same way with other numbers: compare with care. Where pixels are "
    "drawn anew at each use, the numbers are other ones.",
}
# What the data sets show, and what their labels are.
THINGS = {"mnist": "digit", "digits": "digit"}


def report_text(
    values: pd.DataFrame,
    index: Index,
    earlier: Mapping[str, float] | None,
    anomaly: Mapping[str, Any],
    likelihood: Mapping[str, Any],
    params: Params,
    losses: Mapping[str, pd.DataFrame],
    labelled: bool,
    **tables: str,
) -> str:
    """Write the report in Markdown; images in one paragraph belong together.

    `values` are the rows of `judge_run`, `index` says what they are, `earlier` is of `fit_batches`;
    `losses` are this run's by model; `labelled` says whether the images have labels. `tables` are
    more texts by their names in text.md.
    """
    by_interval = values[values["verdict"].isin(VERDICTS[1:3])]
    outside = by_interval[by_interval["outside"] > 0]
    counts = values["verdict"].value_counts().reindex(VERDICTS, fill_value=0)
    dataset, binarize = params.download.dataset, params.binarize
    thing = THINGS.get(dataset, "image")
    of_losses = values[values["split"] != "noise"]
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        tables,
        compared=len(values) > 0,
        others=OTHERS if counts[VERDICTS[3]] else "",
        index=index,
        dataset=dataset,
        thing=thing,
        kind="digit" if thing == "digit" else "class",
        labelled=labelled,
        examples=len(params.figures.images),
        params=params,
        values=values,
        verdicts="\n".join(
            f"- **{counts[v]}** {v} {SIGNS[v]}" for v in VERDICTS if counts[v] or v in VERDICTS[:3]
        ),
        verdict_table=verdict_table(values),
        seeds=f"{values['n'].min():.0f}",
        by_interval=by_interval,
        outside=outside,
        chance=(1 - LEVEL) * len(by_interval),
        farthest=farthest(outside),
        earlier=earlier,
        replay=replay_answer(of_losses),
        losses={model: loss_table(losses[model], of_losses, model) for model in MODELS},
        likelihood=likelihood,
        likelihood_table=likelihood_table(likelihood),
        comparable=COMPARABLE[binarize.mode].format(binarize.threshold)
        if dataset == "mnist"
        else "",
        points=min(POINTS, likelihood["test_images"]),
        decomposition=decomposition_table(likelihood),
        prior_gap=prior_gap(likelihood["20d"]["decomposition"], anomaly["fails_on"]["kl"]),
        units=units_table(likelihood),
        anomaly=anomaly,
        kinds=anomaly_table(anomaly["kinds"]),
        failures=failures(anomaly),
        number=number,
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Write a Markdown table: the first columns are `texts`, the others numbers, to the right."""
    form = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, form, *rows])


def number(value: float, sign: str = "") -> str:
    """Write three decimals, or a dash where there is no value."""
    return "-" if pd.isna(value) else f"{value:{sign}.3f}"


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table for a terminal: the first column is text, the others are numbers, to the
    right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *others in (head, *rows):
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([f"{first:{widths[0]}}", *cells]))
    return "\n".join(lines)


def verdict_table(values: pd.DataFrame, write: Callable[..., str] = markdown_table) -> str:
    """Count the verdicts of each source's losses of a model, and of its noise image's KL."""
    what = (values["model"] + " losses").where(values["split"] != "noise", "KL of the noise image")
    groups = values.groupby(["source", "model", what.rename("what")], sort=False)["verdict"]
    counts = groups.value_counts().unstack(fill_value=0)
    shown = VERDICTS if VERDICTS[3] in counts else VERDICTS[:3]
    counts = counts.reindex(columns=shown, fill_value=0)
    rows = [[f"{source}, {name}", *map(str, row)] for (source, _, name), row in counts.iterrows()]
    return write(["Published values", *(f"{v} {SIGNS[v]}" for v in shown)], rows)


def farthest(outside: pd.DataFrame) -> str:
    """Name the value that is farthest outside its interval, if there is any outside."""
    if outside.empty:
        return ""
    row = outside.loc[outside["outside"].idxmax()]
    where = f"{row['source']}, {row['model']} {row['split']}, epoch {row['epoch']}"
    return f" The farthest lies {row['outside']:.2f} nats outside: {where}."


def loss_table(ours: pd.DataFrame, values: pd.DataFrame, model: str) -> str:
    """Write one model's losses by epoch, ours beside each published one of `values` and its
    verdict."""
    head, columns = ["Epoch"], []
    for split in SPLITS:
        head.append(f"{split}, ours")
        columns.append(ours.set_index("epoch")[f"{split}_loss"].map(number))
        of_split = values[(values["model"] == model) & (values["split"] == split)]
        for source, rows in of_split.set_index("epoch").groupby("source", sort=False):
            signs = rows["verdict"].map(SIGNS)
            head += [f"{split}, {source}", "difference"]
            columns.append(rows["published"].map(number) + " " + signs)
            columns.append(rows["difference"].map(lambda value: number(value, "+")))
    table = pd.concat(columns, axis=1).sort_index().fillna("-")
    lines = ([str(epoch), *row] for epoch, row in zip(table.index, table.to_numpy(), strict=True))
    return markdown_table(head, lines, texts=0)


def likelihood_table(likelihood: Mapping[str, Any]) -> str:
    """Write each model's log-likelihood."""
    names = ("test_log_likelihood", "standard_error", "effective_samples")
    rows = ([model, *(number(likelihood[model][name]) for name in names)] for model in MODELS)
    head = ["Model", "test log-likelihood, nats", "standard error", "effective samples"]
    return markdown_table(head, rows)


def decomposition_table(likelihood: Mapping[str, Any]) -> str:
    """Write the parts of each model's KL, in nats, and how many units are active."""
    rows = []
    for model in MODELS:
        parts = likelihood[model]["decomposition"]
        of_kl = (parts[name] for name in ("kl", "mutual_information", "aggregated_kl"))
        active = f"{parts['active_units']} of {len(parts['kl_by_dimension'])}"
        rows.append([model, *map(number, of_kl), active])
    return markdown_table(
        ["Model", "KL to the prior", "information", "aggregated posterior", "active units"], rows
    )


def prior_gap(parts: Mapping[str, Any], failed: Sequence[str]) -> str:
    """Say what the aggregated posterior's distance from the prior means for the KL as a score."""
    if not failed:
        return ""
    return (
        f"The 20-d model's aggregated posterior is {parts['aggregated_kl']:.1f} nats from the "
        "prior: digits take up a small part of it. The KL says how far an image's posterior is "
        "from the prior, not how far it is from the digits' part, so it can be ordinary for images "
        f"that are no digits: it fails on {', '.join(failed)}, see below."
    )


def units_table(likelihood: Mapping[str, Any]) -> str:
    """Write the loss under other conventions, a column for each model."""
    lines = zip(*(likelihood[model]["units"] for model in MODELS), strict=True)
    rows = ([line[0]["loss"], *(number(cell["value"]) for cell in line)] for line in lines)
    return markdown_table(["Loss", *MODELS], rows)


def anomaly_table(kinds: Mapping[str, Any]) -> str:
    """Write how well each score separates each kind of anomaly from test images."""
    rows = []
    for kind, scores in kinds.items():
        found = [scores[name] for name in SCORE_NAMES]
        rows.append([kind, *(f"{s['roc_auc']:.3f} ({s['average_precision']:.3f})" for s in found)])
    return markdown_table(["Anomalies", *SCORE_NAMES.values()], rows)


def failures(anomaly: Mapping[str, Any]) -> str:
    """Name the kinds of anomalies on which each score fails."""
    failed = [
        f"{SCORE_NAMES[name]} fails on {', '.join(kinds)}"
        for name, kinds in anomaly["fails_on"].items()
        if kinds
    ]
    if not failed:
        return "Each of them separates all kinds."
    return (
        f"**With an area below {anomaly['fails_below']}, {'; '.join(failed)}.** The posterior of "
        "such an image is as close to the prior as a digit's, or the image as easily reconstructed."
    )


def parameter_table(params: Params, groups: Iterable[str]) -> str:
    """Write these groups of the parameters, a row for each, of `download.dataset` one for
    `download`."""
    rows, values = [], params.model_dump(by_alias=True)
    for place in groups:
        name, _, key = place.partition(".")
        found = values[name] if isinstance(values[name], dict) else {"": values[name]}
        pairs = (
            f"{k}: {json.dumps(v)}".removeprefix(": ")
            for k, v in found.items()
            if not key or k == key
        )
        rows.append([name, f"`{', '.join(pairs)}`"])
    return markdown_table(["Parameters", "values"], rows, texts=2)
