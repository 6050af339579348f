"""Pictures of a training for MLflow's image grid, in which runs are side by side."""

import math
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from vae.data import tiled
from vae.frames import load_frames
from vae.tracking.store import Store


def log_pictures(store: Store, run_id: str, path: Path, kinds: Iterable[str]) -> None:
    """Log each kind of picture from the frames of the epochs' ends.

    MLflow opens pictures at step 0: the trained model's here; the other steps are epochs.
    """
    with TemporaryDirectory() as folder:
        for kind in kinds:
            frames = load_frames(path, kind)
            pictures = tiled(frames, math.isqrt(frames.shape[1]) if kind == "manifold" else 1)
            for step, pixels in enumerate([pictures[-1], *pictures]):
                _save(pixels, step, f"{folder}/pictures~{kind}")
        store.client.log_artifacts(run_id, folder, "images")
    store.client.set_tag(run_id, "mlflow.loggedImages", "True")


def _save(pixels: np.ndarray, step: int, key: str) -> None:
    """Save a picture `(height, width)`, uint8, and a small one for the grid.

    Under the names of `MlflowClient.log_image`, which takes three times as long; but without its
    time of day and random number: a picture that is logged again replaces itself.
    """
    picture = Image.fromarray(pixels)
    name = f"{key}+step+{step}+timestamp+{step}+epoch-{step}"
    picture.save(f"{name}.png", compress_level=1)
    small = picture.reduce(max(1, picture.width // 256))
    small.save(f"{name}+compressed.webp", method=0)
