"""Charts of the trained models' scores, KL by dimension and likelihood."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vae.data import IMAGE_SIDE
from vae.report.figures import model_panels, styled
from vae.scores import SCORE_NAMES

# A histogram as one shape; a hundred bars would take a second.
FILLED = {"histtype": "stepfilled"}
MARKS = ("tab:orange", "tab:red", "black")


@styled
def kl_histogram(scores: np.ndarray, marks: Mapping[str, float]) -> Figure:
    """Draw the distribution of the training images' KL, with a line for each of the `marks`."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(title="Distribution of KL Divergences in Training Set")
    axes.set(xlabel="KL Divergence", ylabel="Frequency")
    axes.hist(scores, bins=100, color="tab:blue", **FILLED)
    for (name, value), color in zip(marks.items(), MARKS, strict=False):
        axes.axvline(value, color=color, linestyle="--", label=f"{name}: {value:.3f}")
    figure.legend(loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


@styled
def bias_curves(table: pd.DataFrame, sizes: Mapping[str, int]) -> Figure:
    """Draw log-likelihood against samples for each model, from studies/likelihood.csv."""
    figure, panels = model_panels({name: sizes[name] for name in table["model"].unique()}, 3.5)
    for model, axes in panels.items():
        rows = table[table["model"] == model]
        errors = rows["standard_error"]
        axes.errorbar("samples", "log_likelihood", errors, data=rows, marker="o", capsize=3)
        axes.set(xlabel="Samples of an image's posterior", ylabel="Log-likelihood (nats)")
        axes.set_xscale("log")
    return figure


@styled
def kl_bars(kl: Mapping[str, Sequence[float]]) -> Figure:
    """Draw each model's mean KL by latent dimension, in nats, the largest first."""
    sizes = {model: len(values) for model, values in kl.items()}
    widths = [2 + size for size in sizes.values()]
    figure, panels = model_panels(sizes, 3.5, width_ratios=widths, sharey=True)
    for model, axes in panels.items():
        dimensions = range(1, sizes[model] + 1)
        axes.bar(dimensions, sorted(kl[model], reverse=True), color="tab:blue")
        axes.set(xticks=dimensions)
    figure.supxlabel("Latent dimension, by KL", fontsize="medium")
    next(iter(panels.values())).set_ylabel("Mean KL (nats per image)")
    return figure


@styled
def score_histograms(
    examples: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ordinary: Mapping[str, np.ndarray],
    anomalous: Mapping[str, Mapping[str, np.ndarray]],
    kinds: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Figure:
    """Draw a row for each kind of anomaly: an example, and histograms of the scores.

    `examples` are an image and its reconstruction, `(784,)`; scores are `(images,)`, in nats.
    """
    figure = Figure(figsize=(13, 2.1 * len(examples)), layout="constrained")
    widths = [0.7, 0.7, *[1.6] * len(ordinary)]
    panels = figure.subplots(len(examples), len(widths), squeeze=False, width_ratios=widths)
    for row, (kind, images) in zip(panels, examples.items(), strict=True):
        for axes, image, title in zip(row, images, (kind, "reconstruction"), strict=False):
            axes.imshow(image.reshape(IMAGE_SIDE, IMAGE_SIDE), cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
        for axes, (name, scores) in zip(row[2:], ordinary.items(), strict=True):
            strange = anomalous[kind][name]
            bins = np.histogram_bin_edges(np.concatenate((scores, strange)), 80)
            look = {"density": True, "alpha": 0.6, **FILLED}
            axes.hist(scores, bins, color="tab:blue", label="test images", **look)
            axes.hist(strange, bins, color="tab:red", label="anomalies", **look)
            area = kinds[kind][name]["roc_auc"]
            axes.set_title(f"{SCORE_NAMES[name]}: ROC AUC {area:.3f}", fontsize=9)
            axes.set_yticks([])
    for axes in panels[-1, 2:]:
        axes.set_xlabel("nats")
    panels[0, 2].legend(frameon=False, fontsize=8)
    return figure
