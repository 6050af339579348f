"""The data of the report's script: both models, the latent plane, scores and training."""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from exact import functional
from vae.data import IMAGE_SIDE, Split, tiled
from vae.frames import load_frames
from vae.inference import anomaly_scores, means, posterior_means
from vae.model import VAE
from vae.params import Params
from vae.report.figures import DIGIT_COLORS, frame_epochs, manifold_axis
from vae.scores import limits

# The slider shows so many moments, most of them early, and at most so many ends of epochs.
MOMENTS = 20
# Percentiles of scores are read from so many quantiles of the training images'.
QUANTILES = 2001


def play_data(
    params: Params,
    trained: Mapping[str, VAE],
    train: Split,
    test: Split,
    models: Path,
    losses: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Collect what page.js reads; arrays are little-endian, in base64. `models` has the frames."""
    known = anomaly_scores(trained["20d"], train.images, params.anomaly.batch_size)
    quantiles = np.percentile([*known.values()], np.linspace(0, 100, QUANTILES), axis=1).T
    rows = zip(known, quantiles, strict=True)
    axis = manifold_axis(params.figures.grid_size, params.figures.grid_quantiles, IMAGE_SIDE)
    columns = ["epoch", "train_loss", "test_loss"]
    return {
        # The page scores binarized images.
        "models": playable_models(trained, test.images) if test.images.dtype == np.uint8 else None,
        "scores": {
            "quantiles": {name: packed(row, "<f4") for name, row in rows},
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
        "training": training_moments(params, len(train.images), models),
        "losses": {name: table[columns].to_dict("list") for name, table in losses.items()},
    }


def packed(values: np.ndarray, kind: str) -> str:
    """Write an array's values in base64, as a NumPy type."""
    return b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


@torch.no_grad()
def playable_models(trained: Mapping[str, VAE], images: np.ndarray) -> dict[str, Any] | None:
    """Describe the models for page.js, which computes linear layers with ReLUs between them.

    Returns None if that gives another result than a model for `images` `(images, 784)`.
    """
    found, x = {}, torch.from_numpy(images)
    for name, model in trained.items():
        posterior = model.encode(x)
        z = means(posterior)
        encoder = linear_layers(getattr(model, "encoder", None), x, posterior)
        decoder = linear_layers(getattr(model, "decoder", None), z, model.decode(z))
        if not (encoder and decoder):
            return None
        layers = [packed_layer(layer) for layer in encoder + decoder]
        found[name] = {"latent": z.shape[1], "encoders": len(encoder), "layers": layers}
    return found


def linear_layers(part: nn.Module | None, x: Tensor, y: Tensor) -> list[nn.Linear]:
    """Return a part's linear layers, or none if they and ReLUs do not compute `y` from `x`."""
    modules = part.modules() if isinstance(part, nn.Module) else []
    layers = [layer for layer in modules if isinstance(layer, nn.Linear)]
    try:
        for layer in layers:
            x = functional.linear(x, layer.weight, layer.bias, relu=layer is not layers[-1])
    except ValueError:  # the sizes do not fit: something else stands between them
        return []
    return layers if torch.equal(x, y) else []


def packed_layer(layer: nn.Linear) -> dict[str, str]:
    """Pack weights `(inputs, outputs)` as 16-bit multiples of a step per input.

    With half precision, scores would be off by up to 0.012 nats.
    """
    weight, bias = layer.weight.numpy(), layer.bias
    steps = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(32767)
    numbers = np.rint(weight.T / steps[:, None])
    shifts = np.zeros(len(weight)) if bias is None else bias.numpy()
    parts = {"weights": (numbers, "<i2"), "steps": (steps, "<f4"), "bias": (shifts, "<f4")}
    return {name: packed(*part) for name, part in parts.items()}


def training_moments(params: Params, images: int, models: Path) -> dict[str, Any]:
    """Collect images of both models at some moments of training, with the number of epochs."""
    recorded, epochs = params.figures, params.train.epochs
    passed = frame_epochs(images, params.train, recorded.interval)
    # Frame 1, after the first batch, looks like frame 0.
    dense = np.geomspace(min(2, len(passed) - 1), len(passed) - 1, MOMENTS).round().astype(int)
    ends = len(passed) - 1 + np.linspace(1, epochs, min(MOMENTS, epochs)).astype(int)
    passed = np.concatenate((passed, 1 + np.arange(epochs)))
    chosen = np.concatenate(([0], np.unique(dense), ends))
    chosen = chosen[np.argsort(passed[chosen], kind="stable")]
    found = {"epochs": passed[chosen].round(4).tolist()}
    for model, name, count, rows in (
        ("20d", "reconstructions", len(recorded.images), 1),
        ("2d", "manifold", recorded.grid_size**2, recorded.grid_size),
    ):
        paths = [models / f"{model}-{kind}.arrow" for kind in ("frames", "epochs")]
        frames = [frame for path in paths for frame in load_frames(path, name, count)]
        found[name] = [png(tiled(frames[at], rows)) for at in chosen]
    return found


def png(image: np.ndarray) -> str:
    """Write a gray image as PNG in base64; Pillow's own zlib gives the same bytes everywhere."""
    Image.fromarray(image).save(file := BytesIO(), "PNG")
    return b64encode(file.getvalue()).decode()
