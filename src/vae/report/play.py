"""What the report's page computes with: both models, the plane, scores, and training in frames."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vae.data import IMAGE_SIDE, Split, tiled
from vae.frames import load_frames
from vae.network import Network
from vae.params import Figures, Params
from vae.report.figures import DIGIT_COLORS, frame_epochs, manifold_axis
from vae.report.page import png
from vae.scores import anomaly_scores, limits, posterior_means

# Moments of the training that the slider shows: so many, dense at first, where most happens, and so
# many ends of epochs at most.
MOMENTS = 20
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
    quantiles = np.percentile([*known.values()], np.linspace(0, 100, QUANTILES), axis=1).T
    axis = manifold_axis(params.figures.grid_size, params.figures.grid_quantiles, IMAGE_SIDE)
    return {
        "models": {name: _model(network) for name, network in networks.items()},
        "scores": {
            "quantiles": {
                name: packed(row, "<f4") for name, row in zip(known, quantiles, strict=True)
            },
            "limits": limits(known, params.anomaly.threshold_percentile),
            "strangest": round(100 - params.anomaly.threshold_percentile, 6),
        },
        "plane": {
            "axis": packed(axis, "<f4"),
            "means": packed(posterior_means(networks["2d"], test.images), "<f4"),
            "labels": None if test.labels is None else packed(test.labels, "u1"),
            "colors": [[round(255 * part) for part in color] for color in DIGIT_COLORS],
        },
        "examples": packed(np.packbits(test.images[list(params.figures.images)]), "u1"),
        "training": _moments(params.figures, params.train.epochs, models),
        "losses": {
            name: table[["epoch", "train_loss", "test_loss"]].to_dict("list")
            for name, table in losses.items()
        },
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


def _moments(recorded: Figures, epochs: int, models: Path) -> dict[str, Any]:
    """Pictures of both models at some moments, and how many epochs had passed."""
    path = models / "20d-frames.arrow"
    rows = load_frames(path, "reconstructions", len(recorded.images))
    manifolds = load_frames(models / "2d-frames.arrow", "manifold", recorded.grid_size**2)
    passed = frame_epochs(path, len(rows), epochs, recorded.interval)
    # The first two frames, before training and after one batch, look the same.
    dense = np.geomspace(min(2, len(rows) - 1), len(rows) - 1, MOMENTS).round().astype(int)
    ends = np.flatnonzero(passed % 1 == 0)
    chosen = np.union1d(dense, ends[np.linspace(0, len(ends) - 1, MOMENTS).astype(int)])
    return {
        "epochs": passed[chosen].round(4).tolist(),
        "reconstructions": [png(tiled(rows[at], 1)) for at in chosen],
        "manifolds": [png(tiled(manifolds[at], recorded.grid_size)) for at in chosen],
    }
