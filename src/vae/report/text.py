"""The report's text, in Markdown; what does not change from run to run is in text.md."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vae.params import MODELS, Group
from vae.reproduction import published
from vae.reproduction.intervals import LEVEL
from vae.reproduction.published import PUBLISHED_NOISE_KL
from vae.reproduction.verdicts import VERDICTS, verdict_counts

import pandas as pd

TEMPLATE = Path(__file__).with_name("text.md")
SCORES = {"kl": "KL", "reconstruction": "reconstruction", "negative_elbo": "negative ELBO"}
SIGNS = dict(zip(VERDICTS, "=≈≠", strict=True))
NOT_MNIST = (
    "**These models were not trained on MNIST but on scikit-learn's digits: "
    "the published numbers stand here for the layout only.**\n\n"
)
# They change no result.
HOW_TO_DOWNLOAD = {"mirrors", "attempts", "pause", "timeout"}


def report_text(
    values: pd.DataFrame,
    earlier: dict[str, float],
    anomaly: dict[str, Any],
    likelihood: dict[str, Any],
    params: Mapping[str, Group | int | str],
    versions: Mapping[str, str],
    sums: Mapping[str, str],
) -> str:
    """The report, in Markdown: its figures are links into plots/, those in one paragraph belong together.

    `params` are the groups by name, `versions` the pinned packages', `sums` the MD5 sums of files.
    """
    losses = values[values["split"] != "noise"]
    of_model = {f"losses_{model}": loss_table(losses[losses["model"] == model]) for model in MODELS}
    answer = published.replay_answer(losses)
    return TEMPLATE.read_text(encoding="utf-8").format(
        data="" if params["download"].dataset == "mnist" else NOT_MNIST,
        count=len(values),
        verdicts="\n".join(
            f"- **{(values['verdict'] == v).sum()}** {v} {SIGNS[v]}" for v in VERDICTS
        ),
        verdict_table=verdict_table(values),
        verdict_text=verdict_text(values),
        earlier=earlier_text(earlier),
        replay=f"{answer[0].upper()}{answer[1:]}",
        **of_model,
        likelihood=likelihood_table(likelihood),
        noise=noise_table(anomaly),
        kinds=anomaly_table(anomaly["kinds"]),
        kinds_text=anomaly_text(anomaly),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        params=parameter_table(params),
        sums=markdown_table(
            [["File", "MD5"], ["---"] * 2, *([f"`{k}`", f"`{v}`"] for k, v in sums.items())]
        ),
    )


def markdown_table(rows: Iterable[list[str]]) -> str:
    """A Markdown table; the second row says how its columns are aligned."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def parameter_table(params: Mapping[str, Group | int | str]) -> str:
    """A Markdown table of the parameters, a row for each group, but for those that say how to download."""
    rows = [["Parameters", "values"], ["---", "---"]]
    for name, group in params.items():
        values = (
            group.model_dump(exclude=HOW_TO_DOWNLOAD) if isinstance(group, Group) else {"": group}
        )
        text = ", ".join(
            f"{key}: {json.dumps(value)}".removeprefix(": ") for key, value in values.items()
        )
        rows.append([name, f"`{text}`"])
    return markdown_table(rows)


def verdict_table(values: pd.DataFrame) -> str:
    """A Markdown table: how many published values of each kind have which verdict."""
    lines = [["Published values", *(f"{verdict} {SIGNS[verdict]}" for verdict in VERDICTS)]]
    lines.append(["---", *["---:"] * len(VERDICTS)])
    for (source, model, what), counts in verdict_counts(values).iterrows():
        name = "KL of the noise image" if what == "noise" else f"{model} losses"
        lines.append([f"{source}, {name}", *map(str, counts)])
    return markdown_table(lines)


def verdict_text(values: pd.DataFrame) -> str:
    """What the verdicts mean, and what chance alone would do."""
    judged = values[values["verdict"] != VERDICTS[0]]
    outside = judged[judged["outside"] > 0]
    far = ""
    if len(outside):
        farthest = outside.loc[outside["outside"].idxmax()]
        far = (
            f" The farthest lies {farthest['outside']:.2f} nats outside: {farthest['source']}, "
            f"{farthest['model']} {farthest['split']}, epoch {farthest['epoch']}."
        )
    return (
        "*Replayed* (=): this run gives the notebook's value, within the tolerance of its rounding. "
        "*Consistent* (≈): inside the 99 % prediction interval of "
        f"{values['n'].min():.0f} seeds (studies/seeds.csv), so one more seed may well give it. "
        "*Not reproducible as published* (≠): outside. "
        f"Of the {len(judged)} values judged by the interval, {len(outside)} are outside; chance alone would "
        f"put {(1 - LEVEL) * len(judged):.1f} there.{far}"
    )


def earlier_text(earlier: dict[str, float]) -> str:
    """Why the post's 2-d table cannot be reached."""
    return (
        "The post's 2-d table does not start from a fresh model. What explains its "
        f"{earlier['losses']} losses best is a model that had seen {earlier['batches']} batches before: they "
        f"are {earlier['distance']:.2f} nats (root mean square) from the mean of {earlier['seeds']} seeds "
        f"from there, and {earlier['inside']} of them inside the interval; from a fresh model, "
        f"{earlier['distance_without']:.2f} nats. This is an explanation, not a reproduction."
    )


def likelihood_table(likelihood: dict[str, Any]) -> str:
    """A Markdown table of both models' estimated test log-likelihood."""
    lines = [["Model", "test log-likelihood, nats", "standard error"], ["---", "---:", "---:"]]
    for model in MODELS:
        found = likelihood[model]
        lines.append([model, number(found["test_log_likelihood"]), number(found["standard_error"])])
    note = (
        f"Estimated by importance sampling, {likelihood['samples']} samples each, on the first "
        f"{likelihood['images']:,} test images. It is the number by which VAEs are compared, in other places "
        "on all 10,000."
    )
    return f"{markdown_table(lines)}\n\n{note}"


def loss_table(values: pd.DataFrame) -> str:
    """A Markdown table of one model's losses by epoch, ours beside each published one and its verdict."""
    columns = [(split, source) for split in ("train", "test") for source in ("post", "notebook")]
    head = ["Epoch"]
    for split in ("train", "test"):
        head += [
            f"{split}, ours",
            f"{split}, post",
            "difference",
            f"{split}, notebook",
            "difference",
        ]
    lines = [head, ["---:"] * len(head)]
    cells = values.set_index(["epoch", "split", "source"]).sort_index()
    for epoch in values["epoch"].unique():
        line = [str(epoch)]
        for split, source in columns:
            row = cells.loc[(epoch, split, source)]
            if source == "post":
                line.append(number(row["ours"]))
            line += [
                f"{number(row['published'])} {SIGNS[row['verdict']]}",
                number(row["difference"], "+"),
            ]
        lines.append(line)
    return markdown_table(lines)


def noise_table(anomaly: dict[str, float]) -> str:
    """A Markdown table of the anomaly stage's results."""
    rows = {
        "KL of the noise image, nats": anomaly["noise_kl"],
        "the post's": PUBLISHED_NOISE_KL,
        "difference": anomaly["noise_kl"] - PUBLISHED_NOISE_KL,
        "mean KL of the training images": anomaly["training_kl_mean"],
        "their standard deviation": anomaly["training_kl_standard_deviation"],
        "z-score of the noise image in a normal fit": anomaly["noise_z_score"],
        "% of the training images above it": 100 * anomaly["training_share_above_noise"],
        f"threshold ({anomaly['threshold_percentile']:g}th percentile)": anomaly["threshold"],
        f"% of {anomaly['noise_images']:,} more noise images above the threshold": 100
        * anomaly["noise_images_caught"],
    }
    lines = [[name, number(value)] for name, value in rows.items()]
    return markdown_table([["Quantity", "value"], ["---", "---:"], *lines])


def anomaly_table(kinds: dict[str, Any]) -> str:
    """A Markdown table: how well each score tells each kind of anomaly from test images."""
    names = list(SCORES)
    head = ["Anomalies", *(SCORES[name] for name in names)]
    lines = [head, ["---", *["---:"] * len(names)]]
    for kind, scores in kinds.items():
        cells = [
            f"{scores[n]['roc_auc']:.3f} ({scores[n]['average_precision']:.3f})" for n in names
        ]
        lines.append([kind, *cells])
    return markdown_table(lines)


def anomaly_text(anomaly: dict[str, Any]) -> str:
    """What the table says, and where the post's score fails."""
    text = (
        "Area under the ROC curve and, in brackets, average precision, of telling "
        f"{anomaly['noise_images']:,} anomalies of each kind from all test images under the 20-d model, by "
        "the KL of the posterior, by the reconstruction at the posterior mean, and by their sum. "
    )
    failed = [
        f"{SCORES[name]} fails on {', '.join(kinds)}"
        for name, kinds in anomaly["fails_on"].items()
        if kinds
    ]
    if not failed:
        return text + "Each of them tells all kinds."
    return text + (
        f"**With an area below {anomaly['fails_below']}, {'; '.join(failed)}.** The posterior of such an "
        "image is as close to the prior as a digit's, or the image as easily reconstructed."
    )


def number(value: float, sign: str = "") -> str:
    """Three decimals, or a dash where there is no value."""
    return "-" if pd.isna(value) else f"{value:{sign}.3f}"
