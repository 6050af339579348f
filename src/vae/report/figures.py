"""Figures: images and animations from gray arrays, and charts by matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import NormalDist
from typing import Any

import imageio.v3 as imageio
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from vae.data import tiled
from vae.files import written_whole
from vae.params import Train

# Used as decorators, these replace the user's matplotlibrc. Figures of images are dark.
FRAME = {"axes.spines.top": False, "axes.spines.right": False}
styled = matplotlib.style.context(["default", FRAME | {"axes.grid": True, "grid.alpha": 0.25}])
dark = matplotlib.style.context(["default", "dark_background"])

DIGIT_COLORS = colormaps["tab10"].colors
SPLIT_COLORS = {"train": "tab:blue", "test": "tab:orange"}
# For the first published source, the second, ...
STYLES = ("o-", "x:", "+--", "d-.")
LOSS = "Loss (nats per image)"


def enlarged(images: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge each pixel of `(..., height, width)` to `scale` by `scale` pixels."""
    return images.repeat(scale, axis=-2).repeat(scale, axis=-1)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a gray image `(height, width)`, uint8."""
    with written_whole(path) as file:
        Image.fromarray(image).save(file)


def save_gif(path: Path, frames: np.ndarray, epochs: np.ndarray, milliseconds: int) -> None:
    """Write gray frames `(frames, height, width)`, uint8, as a lossless GIF with epochs on top."""
    scale = 2 if frames.shape[2] >= 140 else 1
    images = []
    for frame, epoch in zip(frames, epochs, strict=True):
        strip = Image.new("L", (frames.shape[2] // scale, 13))
        # Pillow's own bitmap font has the same pixels everywhere.
        font = ImageFont.load_default_imagefont()
        ImageDraw.Draw(strip).text((3, 1), f"epoch {epoch:.2f}", 255, font)
        images.append(np.concatenate((enlarged(np.array(strip), scale), frame)))
    # The last frame stays for two seconds.
    times = [milliseconds] * (len(images) - 1) + [2000]
    # With `optimize`, Pillow changes some gray values by one in frames that have all 256.
    options = {"plugin": "pillow", "mode": "L", "optimize": False, "loop": 0}
    with written_whole(path) as file:
        imageio.imwrite(file, np.stack(images), duration=times, **options)


def frame_epochs(images: int, train: Train, interval: int) -> np.ndarray:
    """Return the number of epochs at each frame of a training on so many images, `(frames,)`."""
    batches = -(-images // train.batch_size)
    # Frames are taken before training, and in each epoch after batch 1 and every `interval` more.
    after = np.arange(0, batches, interval) + 1
    return np.append(0, np.arange(train.epochs)[:, None] + after / batches)


@styled
def save_figure(path: Path, figure: Figure) -> None:
    """Write a chart as PNG, without the version of matplotlib in it."""
    with written_whole(path) as file:
        figure.savefig(file, dpi=100, metadata={"Software": None})


def model_panels(
    sizes: Mapping[str, int], height: float, **options: Any
) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with a panel for each model, given their latent `sizes`; height in inches."""
    figure = Figure(figsize=(11, height), layout="constrained")
    if not sizes:
        note = "Nothing to show: the published or studied numbers are of other data or models."
        figure.text(0.5, 0.5, note, ha="center")
        return figure, {}
    panels = figure.subplots(1, len(sizes), squeeze=False, **options)[0]
    for size, axes in zip(sizes.values(), panels, strict=True):
        axes.set_title(f"{size}-d latent space")
    return figure, dict(zip(sizes, panels, strict=True))


@styled
def loss_curves(
    losses: Mapping[str, pd.DataFrame], published: pd.DataFrame, sizes: Mapping[str, int]
) -> Figure:
    """Draw each model's losses by epoch, and the published ones of `load_published`."""
    figure, panels = model_panels(sizes, 4.5)
    for model, axes in panels.items():
        axes.set(xlabel="Epoch", ylabel=LOSS)
        for split, color in SPLIT_COLORS.items():
            look = {"color": color, "marker": ".", "label": f"this run, {split}"}
            axes.plot("epoch", f"{split}_loss", data=losses[model], **look)
            _mark(axes, published, model, split, color, f", {split}")
        axes.legend(frameon=False, fontsize="small")
    return figure


def _mark(
    axes: Axes, published: pd.DataFrame, model: str, split: str, color: str, suffix: str = ""
) -> None:
    """Draw a model's published losses as markers, labelled with their source and a suffix."""
    shown = published[(published["model"] == model) & (published["split"] == split)]
    groups = shown.groupby("source", sort=False)
    for style, (source, table) in zip(cycle(STYLES), groups, strict=False):
        look = {"color": color, "fillstyle": "none", "label": f"{source}{suffix}"}
        axes.plot("epoch", "published", style[0], data=table, **look)


@styled
def difference_curves(values: pd.DataFrame, sizes: Mapping[str, int]) -> Figure:
    """Draw ours minus published by epoch, for each model, from `Verdicts.values`."""
    values = values[values["split"] != "noise"]
    styles = dict(zip(values["source"].unique(), cycle(STYLES), strict=False))
    figure, panels = model_panels({name: sizes[name] for name in values["model"].unique()}, 4.5)
    for model, axes in panels.items():
        axes.set(xlabel="Epoch", ylabel="Ours minus published (nats per image)")
        axes.axhline(0, color="black", linewidth=0.8)
        of_model = values[values["model"] == model]
        for (source, split), rows in of_model.groupby(["source", "split"], sort=False):
            look = {"color": SPLIT_COLORS[split], "label": f"{source}, {split}"}
            axes.plot("epoch", "difference", styles[source], data=rows, fillstyle="none", **look)
        axes.legend(frameon=False, fontsize="small")
    return figure


@styled
def latent_scatter(means: np.ndarray, labels: np.ndarray | None) -> Figure:
    """Draw posterior means `(images, 2)` in the latent plane, colored by label if there are any."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(title="Posterior means of the test images", aspect="equal")
    axes.set(xlabel="First latent coordinate")
    axes.set_ylabel("Second latent coordinate, downwards as in the decoded plane")
    # All in one call, in the data set's order: no digit covers all others.
    colors = DIGIT_COLORS[:1] if labels is None else np.array(DIGIT_COLORS)[labels]
    axes.scatter(*means.T, s=4, c=colors, alpha=0.6, linewidths=0)
    axes.invert_yaxis()
    if labels is not None:
        for digit, color in enumerate(DIGIT_COLORS):
            axes.scatter([], [], color=color, label=str(digit))
        axes.legend(title="Label", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def manifold_axis(size: int, quantiles: Sequence[float], points: int) -> np.ndarray:
    """Return latent coordinates of so many points in each of `size` digits, `(size * points,)`.

    They run along a side of the manifold, spaced evenly in the prior's quantiles.
    """
    low, high = quantiles
    position = (np.arange(size * points) + 0.5) / points - 0.5
    # From half a digit before the first to half a digit after the last; finite at 0 and 1.
    shares = np.clip(low + (high - low) * position / (size - 1), 1e-4, 1 - 1e-4)
    return np.array([NormalDist().inv_cdf(share) for share in shares])


def show_pixels(figure: Figure, image: np.ndarray, left: int, top: int) -> Axes:
    """Show a gray image `(height, width)`, uint8, pixel by pixel, at a place in pixels."""
    (height, width), (across, down) = image.shape, figure.get_size_inches() * figure.dpi
    box = left / across, 1 - (top + height) / down, width / across, height / down
    axes = figure.add_axes(box, xticks=[], yticks=[])
    # As RGB: a color map changes some gray values by one.
    axes.imshow(np.dstack([image] * 3), interpolation="nearest")
    return axes


@dark
def sample_images(
    fakes: Mapping[str, tuple[np.ndarray, np.ndarray]], sizes: Mapping[str, int]
) -> Figure:
    """Draw samples from the prior `(40, 784)` and images between two test images `(10, 784)`."""
    figure = Figure(figsize=(11.8, 3.84), dpi=100)
    for left, (model, (samples, between)) in zip((20, 600), fakes.items(), strict=True):
        for top, image, title in (
            (35, tiled(samples, 4), f"{sizes[model]}-d latent space: samples from the prior"),
            (309, tiled(between, 1), "From one test image to another, between their posteriors"),
        ):
            show_pixels(figure, enlarged(image, 2), left, top).set_title(title, fontsize=11)
    return figure


@styled
def study_bands(intervals: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw a study's mean losses and 99 % prediction bands by arm, and the published losses."""
    models = intervals["model"].unique()
    figure = Figure(figsize=(11, 4.2 * len(models)), layout="constrained")
    for model, row in zip(models, figure.subplots(len(models), 2, squeeze=False), strict=True):
        for split, axes in zip(SPLIT_COLORS, row, strict=True):
            axes.set(title=f"{model[:-1]}-d latent space, {split}", xlabel="Epoch", ylabel=LOSS)
            shown = (intervals["model"] == model) & (intervals["column"] == f"{split}_loss")
            arms = intervals[shown].groupby("arm", sort=False)
            for color, (arm, band) in zip(cycle(DIGIT_COLORS), arms, strict=False):
                label = f"{arm}: mean of {band['n'].max()} and 99 % band"
                axes.plot("epoch", "mean", data=band, color=color, label=label)
                shade = {"color": color, "alpha": 0.25, "linewidth": 0}
                axes.fill_between("epoch", "low", "high", data=band, **shade)
            _mark(axes, published, model, split, "black")
            axes.legend(frameon=False)
    return figure
