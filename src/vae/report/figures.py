"""The figures: pictures and animations as gray arrays, charts as matplotlib figures."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.special import ndtri

from vae.data import IMAGE_SIDE
from vae.files import written_whole

# As a decorator, so that neither the user's own matplotlibrc shows in the figures, nor these
# settings elsewhere.
FRAME = {"axes.spines.top": False, "axes.spines.right": False}
styled = matplotlib.style.context(["default", FRAME | {"axes.grid": True, "grid.alpha": 0.25}])

DIGIT_COLORS = colormaps["tab10"].colors
SPLIT_COLORS = {"train": "tab:blue", "test": "tab:orange"}
# Of published sources, in their order.
STYLES = ("o-", "x:", "+--", "d-.")
LOSS = "Loss (nats per image)"
Panels = tuple[Figure, dict[str, Axes]]
# Of the map of digits, along a side of a decoded digit.
POINTS = 7


def enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    """Make each pixel of `(..., height, width)` a square of `scale` by `scale`."""
    return picture.repeat(scale, axis=-2).repeat(scale, axis=-1)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a gray picture `(height, width)`, uint8, whole."""
    with written_whole(path) as file:
        imageio.imwrite(file, picture)


def save_gif(path: Path, frames: np.ndarray, milliseconds: int) -> None:
    """Write gray frames `(frames, height, width)`, uint8, as a GIF that loops, without loss.

    It starts with its last frame, which paper and previews show; in the loop that changes nothing.
    """
    frames = np.roll(frames, 1, axis=0)
    # Pillow's optimizing moves some gray values by one when a frame has all 256.
    form = {"plugin": "pillow", "mode": "L", "optimize": False}
    with written_whole(path) as file:
        imageio.imwrite(file, frames, duration=milliseconds, loop=0, **form)


@styled
def save_figure(path: Path, figure: Figure) -> None:
    """Write a chart as PNG, whole, without naming matplotlib's version in it."""
    with written_whole(path) as file:
        figure.savefig(file, dpi=100, metadata={"Software": None})


def model_panels(sizes: Mapping[str, int], height: float, **more: Any) -> Panels:
    """Make a figure with a panel for each model, side by side, or a note where there is none.

    `sizes` are latent sizes by model, `height` is in inches, `more` as matplotlib's `subplots`
    takes it.
    """
    figure = Figure(figsize=(11, height), layout="constrained")
    if not sizes:
        note = "Nothing to show: the published or studied numbers are of other data or models."
        figure.text(0.5, 0.5, note, ha="center")
        return figure, {}
    panels = figure.subplots(1, len(sizes), squeeze=False, **more)[0]
    for size, axes in zip(sizes.values(), panels, strict=True):
        axes.set_title(f"{size}-d latent space")
    return figure, dict(zip(sizes, panels, strict=True))


@styled
def loss_curves(
    losses: Mapping[str, pd.DataFrame], published: pd.DataFrame, sizes: Mapping[str, int]
) -> Figure:
    """Draw each model's losses by epoch, beside those of `load_published`."""
    figure, panels = model_panels(sizes, 4.5)
    for model, axes in panels.items():
        axes.set(xlabel="Epoch", ylabel=LOSS)
        for split, color in SPLIT_COLORS.items():
            look = {"color": color, "marker": ".", "label": f"this run, {split}"}
            axes.plot("epoch", f"{split}_loss", data=losses[model], **look)
            _mark(axes, published, model, split, color=color, label=f"{{}}, {split}")
        axes.legend(frameon=False, fontsize="small")
    return figure


def _mark(axes: Axes, published: pd.DataFrame, model: str, split: str, color, label: str) -> None:
    """Draw a model's published losses as marks, a kind for each source, which `label` names."""
    shown = published[(published["model"] == model) & (published["split"] == split)]
    groups = shown.groupby("source", sort=False)
    for style, (source, table) in zip(cycle(STYLES), groups, strict=False):
        look = {"color": color, "fillstyle": "none", "label": label.format(source)}
        axes.plot("epoch", "published", style[0], data=table, **look)


@styled
def difference_curves(values: pd.DataFrame, sizes: Mapping[str, int]) -> Figure:
    """Draw ours minus published by epoch, for each model, from the rows of `judge_run`."""
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
    """Draw posterior means `(images, 2)` in the latent plane, coloured by label, if any."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(title="Posterior means of the test images", aspect="equal")
    axes.set(xlabel="First latent coordinate", ylabel="Second latent coordinate")
    # Image by image in the data set's order, so that no digit lies on top of all others.
    colors = DIGIT_COLORS[:1] if labels is None else np.array(DIGIT_COLORS)[labels]
    axes.scatter(*means.T, s=4, c=colors, alpha=0.6, linewidths=0)
    axes.invert_yaxis()  # downwards, as on the manifold
    if labels is not None:
        for digit, color in enumerate(DIGIT_COLORS):
            axes.scatter([], [], color=color, label=str(digit))
        axes.legend(title="Label", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def manifold_axis(size: int, quantiles: Sequence[float], points: int) -> np.ndarray:
    """Latent coordinates along a side of the manifold, `(size * points,)`: so many points in each
    of its `size` digits, evenly spaced in the prior's quantiles like the digits."""
    low, high = quantiles
    position = (np.arange(size * points) + 0.5) / points - 0.5
    # Half a digit beyond the first and the last one; quantiles 0 and 1 would be infinitely far.
    return ndtri(np.clip(low + (high - low) * position / (size - 1), 1e-4, 1 - 1e-4))


def digit_shares(
    means: np.ndarray, labels: np.ndarray, size: int, quantiles: Sequence[float], neighbours: int
) -> np.ndarray:
    """Say which digits lie where on the manifold: shares `(10, points, points)`, placed as there.

    At each point of the plane the `neighbours` training images vote whose posterior means
    `(images, 2)` lie nearest; the votes are blurred by half a decoded digit, or every stray image
    would have an island of its own. Along a side, each of the `size` decoded digits has 7 points,
    spaced like the digits: evenly in the quantiles of the prior.
    """
    axis = manifold_axis(size, quantiles, POINTS)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    nearest_first = [*range(1, min(neighbours, len(means)) + 1)]
    votes = labels[KDTree(means).query(points, k=nearest_first, workers=-1)[1]]
    shares = np.stack([(votes == digit).mean(axis=-1) for digit in range(10)])
    # A Gaussian of half a digit. Rounded, since NumPy's exp has other last bits under AVX-512.
    weights = np.exp(-0.5 * (np.arange(-2 * POINTS, 2 * POINTS + 1) / (POINTS / 2)) ** 2).round(12)
    for axis in (1, 2):
        shares = ndimage.correlate1d(shares, weights / weights.sum(), axis)
    return shares


@styled
def manifold_regions(manifold: np.ndarray, shares: np.ndarray) -> Figure:
    """Draw the boundaries between digits on the final manifold `(height, width)`.

    A boundary is where the largest of the `digit_shares` `(10, points, points)` changes. Every
    connected region of at least one decoded digit's size is named where it is widest.
    """
    height, width = manifold.shape
    step = width / shares.shape[-1]
    # Two screen pixels to a pixel.
    figure = Figure(figsize=(width / 50, height / 50), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(manifold, cmap="gray", interpolation="nearest", extent=(0, width, height, 0))
    centres = (np.arange(shares.shape[-1]) + 0.5) * step
    name = {"color": "#ffb000", "fontsize": 36, "fontweight": "bold", "ha": "center"}
    name |= {"va": "center", "path_effects": [withStroke(linewidth=6, foreground="black")]}
    for digit, share in enumerate(shares):
        lead = share - np.delete(shares, digit, axis=0).max(axis=0)
        if lead.min() < 0 < lead.max():
            axes.contour(centres, centres, lead, levels=[0], colors=name["color"], linewidths=2)
        regions, count = ndimage.label(lead > 0)
        for region in range(1, count + 1):
            inside = np.pad(regions == region, 1)
            if inside.sum() * step**2 >= IMAGE_SIDE**2:
                depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
                row, column = np.unravel_index(depth.argmax(), depth.shape)
                axes.text(centres[column], centres[row], str(digit), **name)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


@styled
def study_bands(intervals: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw a study's mean losses by epoch, and bands in which 99 % of further trials fall, with the
    published losses on top: a panel for each model and split, a color for each arm."""
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
            _mark(axes, published, model, split, color="black", label="{}")
            axes.legend(frameon=False)
    return figure
