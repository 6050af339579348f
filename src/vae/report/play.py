"""What the report's page computes with: both models, the plane, scores, and training in frames."""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from vae.data import IMAGE_SIDE, Split, tiled
from vae.frames import load_frames
from vae.network import Network
from vae.params import MODELS, Params
from vae.report.figures import DIGIT_COLORS, manifold_axis
from vae.scores import anomaly_scores, limits, posterior_means

# Moments of the training that the slider shows: dense at first, where most happens.
MOMENTS = 40
# A score's share of training images below it is read from so many of their quantiles.
QUANTILES = 2001


def play_data(
    params: Params,
    networks: Mapping[str, Network],
    train: Split,
    test: Split,
    models: Path,
    losses: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Gather, for JSON, what page.js reads. Arrays are little-endian, in base64.

    `networks` and `losses` (tables by epoch) are by name, `models` is the folder with the frames.
    """
    known = anomaly_scores(networks["20d"], train.images, params.anomaly.batch_size)
    shares = np.linspace(0, 100, QUANTILES)
    quantiles = {name: packed(np.percentile(known[name], shares), "<f4") for name in known}
    means = posterior_means(networks["2d"], test.images)
    axis = manifold_axis(params.figures.grid_size, params.figures.grid_quantiles, IMAGE_SIDE)
    return {
        "models": {name: _model(network) for name, network in networks.items()},
        "scores": {
            "quantiles": quantiles,
            "limits": limits(known, params.anomaly.threshold_percentile),
        },
        "plane": {
            "axis": packed(axis, "<f4"),
            "means": packed(means, "<f4"),
            "labels": None if test.labels is None else packed(test.labels, "u1"),
            "colors": [[round(255 * part) for part in color] for color in DIGIT_COLORS],
        },
        "examples": packed(np.packbits(test.images[list(params.figures.images)]), "u1"),
        "training": _moments(params, len(train.images), models),
        "losses": {name: _columns(losses[name]) for name in MODELS},
    }


def packed(values: np.ndarray, kind: str) -> str:
    """An array's values in base64, as a type of NumPy's."""
    return b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


def _model(network: Network) -> dict[str, Any]:
    """The latent size and the layers: weights `(inputs, outputs)` in 16 bits, as whole numbers of
    an input's step; half precision would put a score 0.012 nats away."""
    layers = []
    for weight, bias in network.layers:
        steps = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(32767)
        numbers = np.rint(weight.T / steps[:, None])
        parts = {"weights": (numbers, "<i2"), "steps": (steps, "<f4"), "bias": (bias, "<f4")}
        layers.append({name: packed(*part) for name, part in parts.items()})
    return {"latent": network.latent, "encoders": len(network.sizes[0]) - 1, "layers": layers}


def _columns(losses: pd.DataFrame) -> dict[str, list[float]]:
    return {name: losses[name].tolist() for name in ("epoch", "train_loss", "test_loss")}


def _moments(params: Params, images: int, models: Path) -> dict[str, Any]:
    """Frames of both models at some moments: how many epochs had passed, and their pictures."""
    rows = load_frames(models / "20d-frames.arrow", "reconstructions", len(params.figures.images))
    manifolds = load_frames(models / "2d-frames.arrow", "manifold", params.figures.grid_size**2)
    batches = -(-images // params.train.batch_size)
    after = np.arange(0, batches, params.figures.interval) + 1
    passed = np.concatenate(
        ([0], *(epoch + after / batches for epoch in range(params.train.epochs)))
    )
    count = min(len(rows), len(manifolds))
    chosen = np.unique(np.geomspace(1, count, MOMENTS).round().astype(int)) - 1
    side = params.figures.grid_size
    return {
        "epochs": passed[chosen].round(4).tolist(),
        "reconstructions": [picture(tiled(rows[at], 1), params) for at in chosen],
        "manifolds": [picture(tiled(manifolds[at], side), params) for at in chosen],
    }


def picture(gray: np.ndarray, params: Params) -> str:
    """A picture `(height, width)` as a PNG in base64, of four bits a pixel where that holds the
    levels of gray."""
    levels = params.figures.gray_levels
    image, bits = Image.fromarray(gray), 8
    if levels <= 16:
        image, bits = Image.fromarray(np.rint(gray / (255 / (levels - 1))).astype(np.uint8)), 4
        image.putpalette(np.linspace(0, 255, levels).round().astype(np.uint8).repeat(3).tobytes())
    image.save(file := BytesIO(), "PNG", bits=bits)
    return b64encode(file.getvalue()).decode()
