"""Turn MNIST's gray pixels into 0 and 1."""

from vae import cli
from vae.data import (
    FILE_NAMES,
    RAW_FOLDER,
    Split,
    binarize,
    checked,
    read_idx,
    sample_pixels,
    save_split,
)
from vae.params import read_params

import numpy as np


def main() -> None:
    raw, binarized = cli.arguments(__doc__, "raw", "binarized")
    seed, settings = read_params("seed", "binarize")
    generator = np.random.RandomState(seed)
    for name, (image_file, label_file) in FILE_NAMES.items():
        gray = read_idx(raw / RAW_FOLDER / image_file, 3)
        if settings.mode == "sample":
            images = sample_pixels(gray, generator)
        else:
            images = binarize(gray, settings.threshold)
        labels = read_idx(raw / RAW_FOLDER / label_file, 1)
        split = checked(Split(images, labels), raw / image_file)
        save_split(split, binarized / f"{name}.safetensors")
        print(f"{name}: {len(images)} images, {images.mean():.1%} of the pixels are 1")


if __name__ == "__main__":
    cli.run(main)
