"""The figures: pictures and animations as gray arrays, charts as matplotlib figures."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from vae.data import IMAGE_SIDE

import imageio.v3 as imageio
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.special import ndtri

# The user's own matplotlibrc must not show in the figures.
matplotlib.rcdefaults()
matplotlib.rcParams.update(
    {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
)

DIGIT_COLORS = matplotlib.colormaps["tab10"].colors


def strip(images: np.ndarray) -> np.ndarray:
    """Images `(..., pictures, 784)` side by side: `(..., 28, 28 * pictures)`."""
    *lead, pictures, _ = images.shape
    return np.swapaxes(images.reshape(*lead, pictures, IMAGE_SIDE, IMAGE_SIDE), -3, -2).reshape(
        *lead, IMAGE_SIDE, IMAGE_SIDE * pictures
    )


def mosaic(images: np.ndarray) -> np.ndarray:
    """A square number of images `(..., n * n, 784)`, row by row: `(..., 28 * n, 28 * n)`."""
    *lead, count, pixels = images.shape
    side = round(count**0.5)
    rows = strip(images.reshape(*lead, side, side, pixels))
    return rows.reshape(*lead, side * IMAGE_SIDE, side * IMAGE_SIDE)


def enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    """A picture `(..., height, width)` with each pixel a square of `scale` by `scale`."""
    return picture.repeat(scale, axis=-2).repeat(scale, axis=-1)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a gray picture `(height, width)`, uint8."""
    imageio.imwrite(path, picture)


def save_gif(path: Path, frames: np.ndarray, milliseconds: int) -> None:
    """Write gray frames `(frames, height, width)`, uint8, as a GIF that loops, without loss."""
    # Pillow's optimizing moves some gray values by one when a frame has all 256.
    imageio.imwrite(
        path, frames, plugin="pillow", mode="L", duration=milliseconds, loop=0, optimize=False
    )


def save_figure(path: Path, figure: Figure) -> None:
    """Write a chart as PNG, without naming matplotlib's version in it."""
    figure.savefig(path, dpi=100, metadata={"Software": None})


def loss_curves(
    losses: Mapping[str, pd.DataFrame], published: Mapping[str, Mapping[str, pd.DataFrame]]
) -> Figure:
    """Losses of each model by epoch, beside the published tables of that model, by their sources."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, (model, ours) in zip(figure.subplots(1, len(losses)), losses.items(), strict=True):
        axes.set(
            title=f"{model[:-1]}-d latent space", xlabel="Epoch", ylabel="Loss (nats per image)"
        )
        for split, color in (("train", "tab:blue"), ("test", "tab:orange")):
            axes.plot(ours["epoch"], ours[f"{split}_loss"], color=color, label=f"this run, {split}")
            for (source, table), marker in zip(published[model].items(), "ox", strict=True):
                axes.plot(
                    table["epoch"],
                    table[f"{split}_loss"],
                    marker,
                    color=color,
                    fillstyle="none",
                    label=f"{source}, {split}",
                )
        axes.legend(frameon=False, fontsize="small")
    return figure


def loss_differences(values: pd.DataFrame) -> Figure:
    """Ours minus published, by epoch, for each model (the columns of `vae.reproduction.compare_losses`)."""
    models = values["model"].unique()
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models)), models, strict=True):
        axes.set(
            title=f"{model[:-1]}-d latent space",
            xlabel="Epoch",
            ylabel="Ours minus published (nats per image)",
        )
        axes.axhline(0, color="black", linewidth=0.8)
        of_model = values[values["model"] == model]
        for (source, split), rows in of_model.groupby(["source", "split"], sort=False):
            axes.plot(
                rows["epoch"],
                rows["difference"],
                marker="ox"[source == "notebook"],
                fillstyle="none",
                linestyle=("-", ":")[source == "notebook"],
                color={"train": "tab:blue", "test": "tab:orange"}[split],
                label=f"{source}, {split}",
            )
        axes.legend(frameon=False, fontsize="small")
    return figure


def latent_scatter(means: np.ndarray, labels: np.ndarray) -> Figure:
    """Posterior means `(images, 2)` in the latent plane, coloured by digit."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(
        title="Posterior means of the test images",
        xlabel="First latent coordinate",
        ylabel="Second latent coordinate",
        aspect="equal",
    )
    # Image by image in the data set's order, so that no digit lies on top of all others.
    axes.scatter(*means.T, s=4, c=np.array(DIGIT_COLORS)[labels], alpha=0.6, linewidths=0)
    for digit, color in enumerate(DIGIT_COLORS):
        axes.scatter([], [], color=color, label=str(digit))
    axes.legend(title="Digit", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def digit_shares(
    means: np.ndarray,
    labels: np.ndarray,
    grid_size: int,
    quantiles: tuple[float, float],
    neighbours: int,
    points_per_digit: int = 7,
) -> np.ndarray:
    """Which digits lie where on the manifold: shares `(10, points, points)`, rows and columns as there.

    Each point of the plane is put to a vote of the `neighbours` training images whose posterior means
    `(images, 2)` lie nearest, and the votes are blurred by half a decoded digit, or every stray image would
    have an island of its own. The points are `points_per_digit` to each decoded digit along a side, spaced
    like the digits: evenly in the quantiles of the prior.
    """
    # A fifth of a second to import, and of use to this alone.
    from scipy import ndimage
    from scipy.spatial import KDTree

    low, high = quantiles
    position = (np.arange(grid_size * points_per_digit) + 0.5) / points_per_digit - 0.5
    # Half a digit beyond the first and the last one; quantiles 0 and 1 would be infinitely far.
    axis = ndtri(np.clip(low + (high - low) * position / (grid_size - 1), 1e-4, 1 - 1e-4))
    second, first = np.meshgrid(axis, axis, indexing="ij")
    neighbours = min(neighbours, len(means))
    _, nearest = KDTree(means).query(
        np.stack((first, second), axis=-1), k=[*range(1, neighbours + 1)], workers=-1
    )
    votes = labels[nearest]
    blur = points_per_digit / 2
    return np.stack(
        [ndimage.gaussian_filter((votes == digit).mean(axis=-1), blur) for digit in range(10)]
    )


def manifold_regions(manifold: np.ndarray, shares: np.ndarray) -> Figure:
    """The final manifold `(height, width)` with the boundaries between digits.

    A boundary is where the largest of the `digit_shares` `(10, points, points)` changes hands. Every
    connected region of at least one decoded digit's size is named where it is widest.
    """
    from scipy import ndimage

    height, width = manifold.shape
    step = width / shares.shape[-1]
    # Two screen pixels to a pixel.
    figure = Figure(figsize=(width / 50, height / 50), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(manifold, cmap="gray", interpolation="nearest", extent=(0, width, height, 0))
    centres = (np.arange(shares.shape[-1]) + 0.5) * step
    color, outline = "#ffb000", [withStroke(linewidth=6, foreground="black")]
    for digit, share in enumerate(shares):
        lead = share - np.delete(shares, digit, axis=0).max(axis=0)
        if lead.min() < 0 < lead.max():
            axes.contour(centres, centres, lead, levels=[0], colors=color, linewidths=2)
        regions, count = ndimage.label(lead > 0)
        for region in range(1, count + 1):
            inside = np.pad(regions == region, 1)
            if inside.sum() * step**2 < IMAGE_SIDE**2:
                continue
            depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            axes.text(
                centres[column],
                centres[row],
                str(digit),
                color=color,
                fontsize=36,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=outline,
            )
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def kl_histogram(scores: np.ndarray, noise_score: float, threshold: float) -> Figure:
    """Distribution of the training images' KL, with the noise image's score and the threshold."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(
        title="Distribution of KL Divergences in Training Set",
        xlabel="KL Divergence",
        ylabel="Frequency",
    )
    axes.hist(scores, bins=100, color="tab:blue")
    marks: Sequence[tuple[float, str, str]] = (
        (threshold, "tab:orange", "threshold"),
        (noise_score, "tab:red", "noise image"),
    )
    for value, color, label in marks:
        axes.axvline(value, color=color, linestyle="--", label=f"{label}: {value:.2f}")
    axes.legend(frameon=False)
    return figure


def anomaly_scores(
    examples: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ordinary: Mapping[str, np.ndarray],
    anomalous: Mapping[str, Mapping[str, np.ndarray]],
    kinds: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Figure:
    """A row for each kind of anomaly: an image with its reconstruction, and how each score, in nats, spreads
    over ordinary images and over these."""
    figure = Figure(figsize=(13, 2.1 * len(examples)), layout="constrained")
    panels = figure.subplots(
        len(examples),
        2 + len(ordinary),
        squeeze=False,
        width_ratios=[0.7, 0.7, *[1.6] * len(ordinary)],
    )
    for number, (row, (kind, pictures)) in enumerate(zip(panels, examples.items(), strict=True)):
        for axes, picture, title in zip(row, pictures, (kind, "reconstruction"), strict=False):
            axes.imshow(picture.reshape(IMAGE_SIDE, IMAGE_SIDE), cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
        for axes, (name, scores) in zip(row[2:], ordinary.items(), strict=True):
            strange = anomalous[kind][name]
            bins = np.histogram_bin_edges(np.concatenate((scores, strange)), 80)
            axes.hist(scores, bins, density=True, color="tab:blue", alpha=0.6, label="test images")
            axes.hist(strange, bins, density=True, color="tab:red", alpha=0.6, label="anomalies")
            area = kinds[kind][name]["roc_auc"]
            axes.set_title(f"{name.replace('_', ' ')}: ROC AUC {area:.3f}", fontsize=9)
            axes.set_yticks([])
            if number == len(examples) - 1:
                axes.set_xlabel("nats")
    panels[0][2].legend(frameon=False, fontsize=8)
    return figure


def study_bands(
    intervals: pd.DataFrame, published: Mapping[str, Mapping[str, pd.DataFrame]]
) -> Figure:
    """A study's losses by epoch: means, and bands in which 99 % of further trials fall, with the published
    tables on top. A panel for each model and split, a color for each arm."""
    models = intervals["model"].unique()
    figure = Figure(figsize=(11, 4.2 * len(models)), layout="constrained")
    panels = figure.subplots(len(models), 2, squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, split in zip(row, ("train", "test"), strict=True):
            axes.set(
                title=f"{model[:-1]}-d latent space, {split}",
                xlabel="Epoch",
                ylabel="Loss (nats per image)",
            )
            shown = intervals[
                (intervals["model"] == model) & (intervals["column"] == f"{split}_loss")
            ]
            for color, (arm, band) in zip(
                cycle(DIGIT_COLORS), shown.groupby("arm", sort=False), strict=False
            ):
                label = f"{arm}: mean of {band['n'].max()} and 99 % band"
                axes.plot(band["epoch"], band["mean"], color=color, label=label)
                axes.fill_between(
                    band["epoch"], band["low"], band["high"], color=color, alpha=0.25, linewidth=0
                )
            for (source, table), marker in zip(published[model].items(), "ox", strict=True):
                axes.plot(
                    table["epoch"],
                    table[f"{split}_loss"],
                    "k" + marker,
                    fillstyle="none",
                    label=source,
                )
            axes.legend(frameon=False)
    return figure
