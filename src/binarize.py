"""Binarize the gray pixels of the images, or scale them to 0.0 to 1.0."""

import vae.environment  # noqa: F401

import numpy as np

from vae import cli
from vae.data import Split, checked, preprocess, raw_files, read_idx, sample_pixels, save_split
from vae.params import read_params


def main() -> None:
    raw, binarized = cli.arguments(__doc__, "raw", "binarized")
    seed, settings = read_params("seed", "binarize")
    generator = np.random.RandomState(seed)
    for name, (image_file, label_file) in raw_files(raw).items():
        gray = read_idx(image_file, 3)
        if settings.mode == "sample":
            images = sample_pixels(gray, generator)
        else:
            kind = np.float32 if settings.mode == "none" else np.uint8
            images = preprocess(gray, settings.threshold, kind)
        if (images == images[0]).all():  # the scores would have no deviation
            raise cli.UserError(
                f"the {len(images)} images of {image_file} are equal after binarize.mode "
                f"{settings.mode} (threshold {settings.threshold}); at least two should differ"
            )
        labels = read_idx(label_file, 1) if label_file.exists() else None
        split = checked(Split(images, labels), image_file)
        save_split(split, binarized / f"{name}.safetensors")
        print(f"{name}: {len(images)} images, the mean of the pixels is {images.mean():.3f}")


if __name__ == "__main__":
    cli.run(main)
