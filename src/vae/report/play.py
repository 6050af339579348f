"""What the report's page computes with: both models, the plane, scores, and training in frames."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from exact import functional
from vae.data import IMAGE_SIDE, Split, tiled
from vae.frames import load_frames
from vae.inference import anomaly_scores, means, posterior_means
from vae.model import VAE
from vae.params import Params
from vae.report.figures import DIGIT_COLORS, frame_epochs, manifold_axis
from vae.report.page import png
from vae.scores import limits

# Moments of the training that the slider shows: so many, dense at first, where most happens, and so
# many ends of epochs at most.
MOMENTS = 20
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
        # The page scores binarized images.
        "models": playable_models(trained, test.images) if test.images.dtype == np.uint8 else None,
        "scores": {
            "quantiles": {
                name: packed(row, "<f4") for name, row in zip(known, quantiles, strict=True)
            },
            "limits": limits(known, params.anomaly.threshold_percentile),
            "strangest": round(100 - params.anomaly.threshold_percentile, 6),
        },
        "plane": {
            "axis": packed(axis, "<f4"),
            "means": packed(posterior_means(trained["2d"], test.images), "<f4"),
            "labels": None if test.labels is None else packed(test.labels, "u1"),
            "colors": [[round(255 * part) for part in color] for color in DIGIT_COLORS],
        },
        "examples": packed(np.packbits(test.images[list(params.figures.images)] > 0.5), "u1"),
        "training": _moments(params, len(train.images), models),
        "losses": {
            name: table[["epoch", "train_loss", "test_loss"]].to_dict("list")
            for name, table in losses.items()
        },
    }


def packed(values: np.ndarray, kind: str) -> str:
    """An array's values in base64, as a type of NumPy's."""
    return b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


@torch.no_grad()
def playable_models(trained: Mapping[str, VAE], images: np.ndarray) -> dict[str, Any] | None:
    """Describe the models for page.js, which computes linear layers with ReLUs between them.

    None where one of them makes something else of `images` `(images, 784)`.
    """
    found, x = {}, torch.from_numpy(images)
    for name, model in trained.items():
        posterior = model.encode(x)
        z = means(posterior)
        encoder = linear_layers(getattr(model, "encoder", None), x, posterior)
        decoder = linear_layers(getattr(model, "decoder", None), z, model.decode(z))
        if not (encoder and decoder):
            return None
        layers = [_packed_layer(layer) for layer in encoder + decoder]
        found[name] = {"latent": z.shape[1], "encoders": len(encoder), "layers": layers}
    return found


def linear_layers(part: nn.Module | None, x: Tensor, y: Tensor) -> list[nn.Linear]:
    """Return a part's linear layers; none unless they, with ReLUs between them, make `y` of `x`."""
    modules = part.modules() if isinstance(part, nn.Module) else []
    layers = [layer for layer in modules if isinstance(layer, nn.Linear)]
    try:
        for layer in layers:
            x = functional.linear(x, layer.weight, layer.bias, relu=layer is not layers[-1])
    except ValueError:  # the sizes do not fit: something stands between them
        return []
    return layers if torch.equal(x, y) else []


def _packed_layer(layer: nn.Linear) -> dict[str, str]:
    """Pack weights `(inputs, outputs)` in 16 bits, as whole numbers of an input's step.

    Half precision would put a score 0.012 nats away.
    """
    weight, bias = layer.weight.numpy(), layer.bias
    steps = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(32767)
    numbers = np.rint(weight.T / steps[:, None])
    shifts = np.zeros(len(weight)) if bias is None else bias.numpy()
    parts = {"weights": (numbers, "<i2"), "steps": (steps, "<f4"), "bias": (shifts, "<f4")}
    return {name: packed(*part) for name, part in parts.items()}


def _moments(params: Params, images: int, models: Path) -> dict[str, Any]:
    """Pictures of both models at some moments, the last after training; and how many epochs had
    passed."""
    recorded = params.figures
    parts = []
    for name, what, count in (
        ("20d", "reconstructions", len(recorded.images)),
        ("2d", "manifold", recorded.grid_size**2),
    ):
        paths = [models / f"{name}-{kind}.arrow" for kind in ("frames", "epochs")]
        parts.append(np.concatenate([load_frames(path, what, count) for path in paths]))
    rows, manifolds = parts
    passed = frame_epochs(images, params.train, recorded.interval)
    # The first two frames, before training and after one batch, look the same.
    first = min(2, len(passed) - 1)
    dense = np.unique(np.geomspace(first, len(passed) - 1, MOMENTS).round().astype(int))
    ends = np.linspace(1, params.train.epochs, min(MOMENTS, params.train.epochs)).astype(int)
    chosen = np.concatenate(([0], dense, len(passed) - 1 + ends))
    passed = np.concatenate((passed, 1 + np.arange(params.train.epochs)))
    chosen = chosen[np.argsort(passed[chosen], kind="stable")]
    return {
        "epochs": passed[chosen].round(4).tolist(),
        "reconstructions": [png(tiled(rows[at], 1)) for at in chosen],
        "manifolds": [png(tiled(manifolds[at], recorded.grid_size)) for at in chosen],
    }
