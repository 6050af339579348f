"""Custom data: a user's 28 x 28 images in data/own, a folder or an .npz file; and any picture.

data/own/README.md describes the formats.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile

from vae.cli import UserError, one_line
from vae.data import IMAGE_SIDE
from vae.files import dvc_files

CUSTOM = "data/own/"
SPLITS = ("train", "test")
SIDE = (IMAGE_SIDE, IMAGE_SIDE)
LARGEST = 40 * IMAGE_SIDE  # the longest side, to which larger pictures are reduced
# Every seventh image is for test, as of MNIST's 70,000.
TEST_SHARE = 7
Arrays = tuple[np.ndarray, np.ndarray | None]


def read_custom_data(path: Path) -> dict[str, Arrays]:
    """Read gray images `(n, 28, 28)` and labels `(n,)` or None, uint8, by split.

    `path` is data/own/NAME. Raises UserError, which names the file.
    """
    files = [file for file in dvc_files(Path(CUSTOM)) if file.is_relative_to(path)]
    if files == [path] and path.suffix.lower() == ".npz":
        splits = _archive(path)
    elif files and files != [path]:
        splits = _folder(path, files)
    else:
        raise UserError(
            f"{path} is neither a folder of pictures nor an .npz file, or .dvcignore names it; "
            "data/own/README.md has the formats"
        )
    if len({labels is None for _, labels in splits.values()}) > 1:
        raise UserError(f"{path} has labels in one of train and test; it needs both or none")
    return splits


def _split(path: Path, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Arrays]:
    """Split images into train and test."""
    test = np.arange(len(images)) % TEST_SHARE == TEST_SHARE - 1
    if test.sum() < 2:  # one alone has no standard error
        raise UserError(f"{path} has {len(test)} images; it needs {2 * TEST_SHARE} for two splits")
    return {
        split: (images[rows], None if labels is None else labels[rows])
        for split, rows in zip(SPLITS, (~test, test), strict=True)
    }


def _folder(path: Path, files: Iterable[Path]) -> dict[str, Arrays]:
    """Read the `files` of a folder by split."""
    if any((path / name).is_dir() for name in SPLITS):
        return {name: _pictures(path / name, files) for name in SPLITS}
    return _split(path, *_pictures(path, files))


def _pictures(folder: Path, files: Iterable[Path]) -> Arrays:
    """Read the files in `folder`, or in its folders 0 to 9, in the order of their names."""
    paths = [path for path in files if path.is_relative_to(folder)]
    names = {path.relative_to(folder).parent.as_posix() for path in paths}
    if not paths:
        raise UserError(f"{folder} holds no pictures")
    if not (names == {"."} or names <= set("0123456789")):
        raise UserError(
            f"{folder} has pictures in {', '.join(sorted(names))}; they should be in the folder "
            "itself or, with labels, in folders named 0 to 9"
        )
    labels = None if names == {"."} else np.array([path.parent.name for path in paths], np.uint8)
    images = [read_gray(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != SIDE:
            height, width = image.shape
            raise UserError(f"{path} has {width} x {height} pixels; it should have 28 x 28")
    return np.stack(images), labels


def _archive(path: Path) -> dict[str, Arrays]:
    """Read an .npz file by split."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"cannot read {path} as an .npz file ({one_line(error)})") from None
    if "x" in arrays:
        return _split(path, *_checked(path, arrays, "x", "y"))
    return {split: _checked(path, arrays, f"x_{split}", f"y_{split}") for split in SPLITS}


def _checked(path: Path, arrays: Mapping[str, np.ndarray], x: str, y: str) -> Arrays:
    """Return the arrays `x` and `y`, images and labels. Raises UserError where they do not fit."""
    images, labels = arrays.get(x), arrays.get(y)
    if images is None:
        raise UserError(f"{path} has no array {x}; there are {', '.join(sorted(arrays)) or 'none'}")
    count = len(images) if images.dtype == np.uint8 and images.shape[1:] == SIDE else 0
    digits = np.zeros(count, int) if labels is None else labels
    whole = digits.dtype.kind in "iu" and digits.shape == (count,)
    if not (count and whole and digits.min() >= 0 and digits.max() <= 9):
        raise UserError(
            f"{path}: {x} is {images.dtype} {images.shape} and {y} {digits.dtype} {digits.shape}; "
            "they should be uint8 (n, 28, 28) of 0 to 255, and (n,) whole numbers of 0 to 9"
        )
    return images, None if labels is None else labels.astype(np.uint8)


def read_gray(path: Path) -> np.ndarray:
    """Read a picture as gray values `(height, width)`, uint8, upright, at most `LARGEST` a side.

    Any format of Pillow's will do but EPS, which another program would run. Raises UserError.
    """
    Image.init()
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=[*(set(Image.OPEN) - {"EPS"})]) as image,
        ):
            gray, alpha = _eight_bits(image).convert("LA").split()
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"cannot read {path} as a picture ({one_line(error)})") from None
    # Transparent pixels contrast with the visible ones.
    seen = np.asarray(gray)[np.asarray(alpha) > 0]
    paper = Image.new("L", gray.size, 255 if seen.size and seen.mean() < 127.5 else 0)
    gray = Image.composite(gray, paper, alpha)
    gray.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(gray)


def _eight_bits(image: ImageFile) -> Image.Image:
    """Return an open picture upright, in 8 bits. Raises ValueError where Pillow 13.0 would read it
    wrongly, or where the values of black and white are unknown."""
    if image.format == "TIFF" and image.n_frames > 1:
        raise ValueError(f"a TIFF of {image.n_frames} pages; save each as a picture of its own")
    if image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) > 4:
        raise ValueError("a TIFF on its side; turn it, or save it as PNG")
    upright = ImageOps.exif_transpose(image)
    if image.mode[0] not in "IF":
        return upright
    if image.format != "PNG" or "transparency" in image.info:
        raise ValueError("gray values of more than 8 bits; save it as PNG of 8 or 16 bits")
    return Image.fromarray(np.rint(np.asarray(upright) / 65535 * 255).astype(np.uint8))
