"""The latent plane: images decoded from it, and where each digit's images lie."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage
from scipy.spatial import KDTree

from vae.data import IMAGE_SIDE
from vae.report.figures import dark, manifold_axis, show_pixels, styled

# Points of `digit_shares` along a side of a decoded digit.
POINTS = 7


@dark
def manifold_plane(manifold: np.ndarray, axis: np.ndarray) -> Figure:
    """Draw the manifold `(side, side)`, uint8, with the latent coordinates `axis` of a side."""
    side, left = len(manifold), 60
    figure = Figure(figsize=((side + left + 10) / 100, (side + left) / 100), dpi=100)
    axes = show_pixels(figure, manifold, left, 10)
    named = np.linspace(0, len(axis) - 1, min(len(axis), 10)).round().astype(int)
    places, names = (named + 0.5) * side / len(axis), [f"{value:.2f}" for value in axis[named]]
    axes.set(xlabel="First latent coordinate", ylabel="Second latent coordinate")
    axes.set_xticks(places, names, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    return figure


def digit_shares(
    means: np.ndarray, labels: np.ndarray, size: int, quantiles: Sequence[float], neighbours: int
) -> np.ndarray:
    """Return each digit's share of the votes at each point of the manifold, `(10, points, points)`.

    The `neighbours` training images vote whose posterior means `(images, 2)` are nearest. The votes
    are blurred by half a decoded digit, or every stray image would be an island.
    """
    axis = manifold_axis(size, quantiles, POINTS)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    nearest_first = [*range(1, min(neighbours, len(means)) + 1)]
    votes = labels[KDTree(means).query(points, k=nearest_first, workers=-1)[1]]
    shares = np.stack([(votes == digit).mean(axis=-1) for digit in range(10)])
    # A Gaussian, rounded because the last bits of NumPy's exp depend on the processor.
    weights = np.exp(-0.5 * (np.arange(-2 * POINTS, 2 * POINTS + 1) / (POINTS / 2)) ** 2).round(12)
    for axis in (1, 2):
        shares = ndimage.correlate1d(shares, weights / weights.sum(), axis)
    return shares


@styled
def manifold_regions(manifold: np.ndarray, shares: np.ndarray) -> Figure:
    """Draw the boundaries between digits on the manifold `(height, width)`.

    A boundary is where the largest of the `digit_shares` changes. A connected region of at least
    one decoded digit's size has the digit's number where it is widest.
    """
    height, width = manifold.shape
    step = width / shares.shape[-1]
    # Two screen pixels per pixel.
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
