"""Turn MNIST's gray pixels into 0 and 1."""

from pathlib import Path

from vae.data import FILE_NAMES, RAW_FOLDER, Split, binarize, checked, read_idx, save_split
from vae.errors import arguments, run_stage
from vae.params import read_params


def main() -> None:
    raw, binarized = map(Path, arguments("raw", "binarized"))
    (settings,) = read_params("binarize")
    for name, (image_file, label_file) in FILE_NAMES.items():
        images = binarize(read_idx(raw / RAW_FOLDER / image_file, dimensions=3), settings.threshold)
        labels = read_idx(raw / RAW_FOLDER / label_file, dimensions=1)
        save_split(checked(Split(images, labels), raw / image_file), binarized / f"{name}.safetensors")
        print(f"{name}: {len(images)} images, {images.mean():.1%} of the pixels are 1")


if __name__ == "__main__":
    run_stage(main)
