"""What the report's page computes with: both models, the plane, scores, and training in frames."""

from base64 import b64encode
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

from vae.data import IMAGE_SIDE, Split, tiled
from vae.frames import load_frames
from vae.inference import anomaly_scores, posterior_means
from vae.model import VAE
from vae.params import Params
from vae.report.figures import DIGIT_COLORS, manifold_axis
from vae.report.page import png
from vae.scores import limits

# Moments of the training that the slider shows: dense at first, where most happens.
MOMENTS = 40
# A score's share of training images below it is read from so many of their quantiles.
QUANTILES = 2001


def play_data(
    params: Params,
    trained: Mapping[str, VAE],
    train: Split,
    test: Split,
    models: Path,
    losses: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Gather, for JSON, what page.js reads. Arrays are little-endian, in base64.

    `trained` models and `losses` (tables by epoch) are by name; `models` has the frames.
    """
    known = anomaly_scores(trained["20d"], train.images, params.anomaly.batch_size)
    quantiles = np.percentile([*known.values()], np.linspace(0, 100, QUANTILES), axis=1).T
    axis = manifold_axis(params.figures.grid_size, params.figures.grid_quantiles, IMAGE_SIDE)
    return {
        "models": {name: _model(model) for name, model in trained.items()},
        "scores": {
            "quantiles": {
                name: packed(row, "<f4") for name, row in zip(known, quantiles, strict=True)
            },
            "limits": limits(known, params.anomaly.threshold_percentile),
        },
        "plane": {
            "axis": packed(axis, "<f4"),
            "means": packed(posterior_means(trained["2d"], test.images), "<f4"),
            "labels": None if test.labels is None else packed(test.labels, "u1"),
            "colors": [[round(255 * part) for part in color] for color in DIGIT_COLORS],
        },
        "examples": packed(np.packbits(test.images[list(params.figures.images)]), "u1"),
        "training": _moments(params, len(train.images), models),
        "losses": {
            name: table[["epoch", "train_loss", "test_loss"]].to_dict("list")
            for name, table in losses.items()
        },
    }


def packed(values: np.ndarray, kind: str) -> str:
    """An array's values in base64, as a type of NumPy's."""
    return b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


def _model(model: VAE) -> dict[str, Any]:
    """The latent size and the layers: weights `(inputs, outputs)` in 16 bits, as whole numbers of
    an input's step; half precision would put a score 0.012 nats away."""
    layers = []
    stacks = [
        [layer for layer in part if isinstance(layer, nn.Linear)]
        for part in (model.encoder, model.decoder)
    ]
    for layer in chain(*stacks):
        weight, bias = layer.weight.numpy(), layer.bias.numpy()
        steps = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(32767)
        numbers = np.rint(weight.T / steps[:, None])
        parts = {"weights": (numbers, "<i2"), "steps": (steps, "<f4"), "bias": (bias, "<f4")}
        layers.append({name: packed(*part) for name, part in parts.items()})
    return {"latent": stacks[1][0].in_features, "encoders": len(stacks[0]), "layers": layers}


def _moments(params: Params, images: int, models: Path) -> dict[str, Any]:
    """Frames of both models at some moments: how many epochs had passed, and their pictures."""
    recorded = params.figures
    rows = load_frames(models / "20d-frames.arrow", "reconstructions", len(recorded.images))
    manifolds = load_frames(models / "2d-frames.arrow", "manifold", recorded.grid_size**2)
    batches = -(-images // params.train.batch_size)
    after = np.arange(0, batches, recorded.interval) + 1
    # The first frame is of the time before training.
    passed = np.append(0, np.arange(params.train.epochs)[:, None] + after / batches)
    count = min(len(rows), len(manifolds))
    chosen = np.unique(np.geomspace(1, count, MOMENTS).round().astype(int)) - 1
    return {
        "epochs": passed[chosen].round(4).tolist(),
        "reconstructions": [png(Image.fromarray(tiled(rows[at], 1))) for at in chosen],
        "manifolds": [
            png(Image.fromarray(tiled(manifolds[at], recorded.grid_size))) for at in chosen
        ],
    }
