"""The work of every contestant: a training epoch of a model, on the same images and parameters."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.cli import UserError
from vae.data import binarize, raw_files, read_idx
from vae.params import Figures, Model, Train, read_params


class Work(NamedTuple):
    """Images to train on and pictures to reconstruct for the figures, uint8 of 0 to 255.

    `pixels` is `(images, 28, 28)`, `pictures` `(pictures, 28, 28)`.
    """

    pixels: np.ndarray
    pictures: np.ndarray
    architecture: Model
    settings: Train
    figures: Figures

    @property
    def binary(self) -> np.ndarray:
        """`pixels` as the pipeline binarizes them, `(images, 784)`."""
        return binarize(self.pixels, 128)


@cache
def mnist(model: str) -> Work:
    """Give an epoch over MNIST's 60,000 images of the model "20d" or "2d", committed parameters.

    Raises UserError when the pipeline has not fetched them.
    """
    figures, settings, architecture = read_params("figures", "train", f"train-{model}")
    paths = [images for images, _ in raw_files(Path("data/raw")).values()]
    if not all(path.exists() for path in paths):
        raise UserError(f"no {paths[0]}; run make repro first")
    train, test = (read_idx(path, 3) for path in paths)
    settings = settings.model_copy(update={"epochs": 1, "device": "cpu"})
    return Work(train, test[list(figures.images)], architecture, settings, figures)
