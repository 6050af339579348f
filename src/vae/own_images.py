"""A user's own 28 x 28 images, from a folder or an .npz file: data/own/README.md says how."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from vae.cli import UserError, one_line
from vae.data import IMAGE_SIDE

OWN = "data/own/"
SIDE = (IMAGE_SIDE, IMAGE_SIDE)
# Every seventh image is for test, as of MNIST's 70,000.
TEST_SHARE = 7
Arrays = tuple[np.ndarray, np.ndarray | None]


def own_images(path: Path) -> dict[str, Arrays]:
    """Read gray images `(n, 28, 28)` and labels `(n,)`, or None, both uint8, by split.

    Raises UserError, naming the file, for all that is something else.
    """
    if path.is_dir():
        parts = {split: path / split for split in ("train", "test")}
        apart = any(part.is_dir() for part in parts.values())
        found = {split: _folder(part) for split, part in parts.items()} if apart else _folder(path)
    elif path.suffix == ".npz":
        found = _archive(path)
    else:
        raise UserError(f"{path} is neither a folder nor an .npz file; data/own/README.md says how")
    if isinstance(found, dict):
        return found
    test = np.arange(len(found[0])) % TEST_SHARE == TEST_SHARE - 1
    if not test.any():
        raise UserError(f"{path} has {len(test)} images; {TEST_SHARE} or more make two splits")
    splits = {"train": ~test, "test": test}
    return {
        split: (found[0][rows], None if found[1] is None else found[1][rows])
        for split, rows in splits.items()
    }


def _folder(folder: Path) -> Arrays:
    """Read the pictures of a folder, or of its folders 0 to 9, in the order of their names."""
    paths = sorted(path for path in folder.rglob("[!.]*") if not path.is_dir())
    names = {path.relative_to(folder).parent.as_posix() for path in paths}
    if not paths:
        raise UserError(f"{folder} holds no pictures")
    if not (names == {"."} or names <= set("0123456789")):
        raise UserError(
            f"{folder} has pictures in {', '.join(sorted(names))}; they should lie in it, or, with "
            "labels, in folders named 0 to 9"
        )
    labels = None if names == {"."} else np.array([path.parent.name for path in paths], np.uint8)
    return np.stack([_picture(path) for path in paths]), labels


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            kind = f"{picture.width} x {picture.height} pixels, {picture.mode}"
            fits = picture.size == SIDE and picture.mode in ("1", "L", "P", "RGB")
            gray = np.asarray(picture.convert("L")) if fits else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {path} as a picture ({one_line(error)})") from None
    if gray is None:
        raise UserError(f"{path} has {kind}; it should have 28 x 28, gray or RGB, of 8 bits")
    return gray


def _archive(path: Path) -> dict[str, Arrays] | Arrays:
    """Read the arrays of an .npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"cannot read {path} as an .npz file ({one_line(error)})") from None
    if "x" in arrays:
        return _checked(path, arrays, "x", "y")
    if ("y_train" in arrays) != ("y_test" in arrays):
        raise UserError(f"{path} has only one of y_train and y_test; it should have both or none")
    return {
        split: _checked(path, arrays, f"x_{split}", f"y_{split}") for split in ("train", "test")
    }


def _checked(path: Path, arrays: Mapping[str, np.ndarray], x: str, y: str) -> Arrays:
    """Return images and labels by their names. Raises UserError unless they are as they should."""
    images, labels = arrays.get(x), arrays.get(y)
    if images is None:
        raise UserError(f"{path} has no array {x}; there are {', '.join(sorted(arrays)) or 'none'}")
    if images.dtype != np.uint8 or images.shape[1:] != SIDE or not len(images):
        raise UserError(
            f"{path}: {x} is {images.dtype} {images.shape}; it should be uint8 (n, 28, 28), of 0 "
            "to 255"
        )
    if labels is None:
        return images, None
    whole = labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
    if not (whole and labels.min() >= 0 and labels.max() <= 9):
        raise UserError(
            f"{path}: {y} is {labels.dtype} {labels.shape}; it should be {len(images)} whole "
            "numbers of 0 to 9"
        )
    return images, labels.astype(np.uint8)
