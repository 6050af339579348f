"""MNIST's file format, and the images that the models see: binarized, or gray."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vae.cli import UserError
from vae.files import write_tensors, written_whole

IMAGE_SIDE = 28
PIXELS = IMAGE_SIDE * IMAGE_SIDE

# File names of images and labels by split, as torchvision has them.
FILE_NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class Split(NamedTuple):
    """Images `(images, 784)`, uint8 of 0 and 1 or, for a Gaussian likelihood, float32 from 0.0 to
    1.0; and labels `(images,)`, uint8 of 0 to 9, or None."""

    images: np.ndarray
    labels: np.ndarray | None = None


def raw_files(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the paths of images and labels by split, in `root`/NAME/raw, the only data set."""
    (folder,) = root.glob("*/raw")
    return {split: (folder / x, folder / y) for split, (x, y) in FILE_NAMES.items()}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes: two zero bytes, the type 8, the number of
    dimensions, the size of each as a big-endian 32-bit integer, and the values. Raises UserError.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        kind, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"cannot read {path} ({error}); delete it and run again") from None
    values = np.frombuffer(content, np.uint8)[4 + 4 * dimensions :]
    if kind != 0x800 + dimensions or not 0 < math.prod(shape) == len(values):
        raise UserError(f"{path} is no {dimensions}-dimensional IDX file; delete it and run again")
    return values.reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX file (see `read_idx`); equal values, equal bytes."""
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    with written_whole(path) as temporary:
        temporary.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0))


def binarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Return 1 where a pixel of 0 to 255 is at least `threshold`, else 0, uint8 `(images, 784)`.

    With 128 it is the post's `round(x / 255)`.
    """
    return (pixels.reshape(len(pixels), -1) >= threshold).astype(np.uint8)


def sample_pixels(pixels: np.ndarray, generator: np.random.RandomState) -> np.ndarray:
    """Draw 1 with probability x / 255 for a pixel x, else 0, uint8 `(images, 784)`.

    This is the binarization of Salakhutdinov and Murray (2008), with other random numbers.
    """
    images = pixels.reshape(len(pixels), -1)
    # x of the 255 equally likely numbers are below x.
    return (generator.randint(0, 255, images.shape, dtype=np.uint8) < images).astype(np.uint8)


def preprocess(pixels: np.ndarray, threshold: int, kind: DTypeLike) -> np.ndarray:
    """Turn pixels x of 0 to 255 into images of `Split`: uint8, binarized, or float32, x / 255."""
    if kind == np.uint8:
        return binarize(pixels, threshold)
    return (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)


def save_split(split: Split, path: Path) -> None:
    """Write a split as safetensors; equal splits give equal files."""
    arrays = {name: array for name, array in split._asdict().items() if array is not None}
    write_tensors(path, arrays)


def load_split(folder: Path, name: str) -> Split:
    """Read the split "train" or "test". Raises UserError when it is missing or damaged."""
    path = folder / f"{name}.safetensors"
    try:
        split = Split(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:  # the last for names of other arrays
        raise UserError(f"cannot read {path} ({error}); run `dvc repro binarize`") from None
    return checked(split, path)


def checked(split: Split, path: Path) -> Split:
    """Return a split of `path`. Raises UserError unless it has images as `Split` describes."""
    images = split.images
    labels = np.zeros(len(images), np.uint8) if split.labels is None else split.labels
    fits = images.dtype in (np.uint8, np.float32) and images.shape == (*labels.shape, PIXELS)
    fits = fits and images.size and images.min() >= 0 and images.max() <= 1
    if not (fits and labels.dtype == np.uint8 and labels.max() <= 9):
        raise UserError(
            f"{path} holds images {images.dtype} {images.shape} and labels {labels.dtype} "
            f"{labels.shape}; they should be uint8 (n, {PIXELS}) of 0 and 1, or float32 from 0 to "
            "1, and uint8 (n,) of 0 to 9; run `dvc repro --force`"
        )
    return split


def tiled(images: np.ndarray, rows: int) -> np.ndarray:
    """Arrange images `(..., n, 784)` in `rows` rows: `(..., 28 * rows, 28 * n / rows)`."""
    *lead, count, _ = images.shape
    squares = images.reshape(*lead, rows, count // rows, IMAGE_SIDE, IMAGE_SIDE)
    return squares.swapaxes(-3, -2).reshape(*lead, rows * IMAGE_SIDE, count // rows * IMAGE_SIDE)


def upscaled_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 digits in MNIST's form, and their labels.

    They are scaled up from 8 x 8 to gray values from 0.0 to 255.0, `(images, 28, 28)`.
    """
    # These take seconds to import, and few scripts need them.
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 8 pixels become 24, inside MNIST's margin; 16 levels become 256.
    enlarged = [zoom(image, 3, order=1, grid_mode=True, mode="nearest") for image in digits.images]
    pixels = (np.stack(enlarged) * 255 / 16).round().clip(0, 255)
    return np.pad(pixels, ((0, 0), (2, 2), (2, 2))), digits.target
