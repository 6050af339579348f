"""The report's text, in Markdown."""

import pandas as pd

from vae import reproduction
from vae.params import MODELS, Download
from vae.reproduction import PUBLISHED_NOISE_KL

FIGURES = {
    "Losses": {"losses.png": "Losses of both models by epoch, ours and published"},
    "Reconstruction": {
        "originals.png": "The five images picked in the post",
        "reconstruction.gif": "Originals above their reconstructions, over the whole training",
        "reconstruction-early.gif": "The same, early in training",
    },
    "Manifold": {
        "manifold.gif": "Digits decoded from a grid of the 2-d latent space, over the whole training",
        "manifold-early.gif": "The same, early in training",
        "manifold.png": "The manifold after training",
        "manifold-regions.png": "The manifold with the boundaries between digits, as training images vote",
        "latent.png": "Posterior means of the test images in the 2-d latent space, by digit",
    },
    "Anomaly detection": {
        "kl-divergence.png": "Distribution of the training images' KL divergence under the 20-d model",
        "noise.png": "The noise image",
    },
}


def report_text(values: pd.DataFrame, anomaly: dict[str, float], download: Download) -> str:
    """The report, in Markdown. Its figures are links into plots/."""
    parts = ["# Variational Autoencoder Code and Experiments, regenerated"]
    if download.dataset != "mnist":
        parts.append(
            "**These models were not trained on MNIST but on scikit-learn's digits: "
            "the published numbers stand here for the layout only.**"
        )
    parts.append(
        "All losses are the negative ELBO, reconstruction + KL, in nats per image. *Post* are the tables "
        "that the post prints, *notebook* those saved in the author's own notebook; a difference is ours "
        "minus theirs."
    )
    answer = reproduction.replay_answer(values)
    parts.append(f"{answer[0].upper()}{answer[1:]}.")
    for model in MODELS:
        parts += [f"## Losses with a {model} latent space", loss_table(values[values["model"] == model])]
    parts += [
        "![Differences to the published losses](plots/reproduction.png)",
        "## Noise score",
        noise_table(anomaly),
    ]
    for title, figures in FIGURES.items():
        parts.append(f"## {title}")
        parts += [f"{caption}:\n\n![{caption}](plots/{name})" for name, caption in figures.items()]
    return "\n\n".join(parts) + "\n"


def loss_table(values: pd.DataFrame) -> str:
    """A Markdown table of one model's losses by epoch, ours beside each published one."""
    columns = [(split, source) for split in ("train", "test") for source in ("post", "notebook")]
    head = ["Epoch"]
    for split in ("train", "test"):
        head += [f"{split}, ours", f"{split}, post", "difference", f"{split}, notebook", "difference"]
    lines = [head, ["---:"] * len(head)]
    cells = values.set_index(["epoch", "split", "source"]).sort_index()
    for epoch in values["epoch"].unique():
        line = [str(epoch)]
        for split, source in columns:
            row = cells.loc[(epoch, split, source)]
            if source == "post":
                line.append(number(row["ours"]))
            line += [number(row["published"]), number(row["difference"], "+")]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    lines = [f"| {name} | {number(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---:|", *lines])


def number(value: float, sign: str = "") -> str:
    """Three decimals, or a dash where there is no value."""
    return "-" if pd.isna(value) else f"{value:{sign}.3f}"
