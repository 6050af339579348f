"""A user's own 28 x 28 images, from a folder or an .npz file: data/own/README.md says how; and how
any picture is read."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile

from vae.cli import UserError, one_line
from vae.data import IMAGE_SIDE
from vae.files import dvc_files

OWN = "data/own/"
SPLITS = ("train", "test")
SIDE = (IMAGE_SIDE, IMAGE_SIDE)
LARGEST = 40 * IMAGE_SIDE  # larger pictures are reduced to this side; equal squares stay equal
# The white of deeper pictures than 8 bits, by format and Pillow's mode.
WHITES = {(kind, "I;16"): 65535 for kind in ("PNG", "TIFF", "PPM", "JPEG2000")}
WHITES |= {("TIFF", "I;16B"): 65535, ("PPM", "I"): 65535, ("TIFF", "F"): 1, ("PPM", "F"): 1}
# Every seventh image is for test, as of MNIST's 70,000.
TEST_SHARE = 7
Arrays = tuple[np.ndarray, np.ndarray | None]


def own_images(path: Path) -> dict[str, Arrays]:
    """Read gray images `(n, 28, 28)` and labels `(n,)`, or None, both uint8, by split.

    `path` is data/own/NAME. Raises UserError, naming the file, for all that is something else.
    """
    files = [file for file in dvc_files(Path(OWN)) if file.is_relative_to(path)]
    if files == [path] and path.suffix.lower() == ".npz":
        parts = _archive(path)
    elif files and files != [path]:
        split = any((path / name).is_dir() for name in SPLITS)
        parts = {name: _folder(path / name, files) for name in (SPLITS if split else [""])}
    else:
        raise UserError(
            f"{path} is neither a folder of pictures nor an .npz file, or .dvcignore names it; "
            "data/own/README.md says how"
        )
    splits = parts if len(parts) > 1 else _split(path, *parts[""])
    if len({labels is None for _, labels in splits.values()}) > 1:
        raise UserError(f"{path} has labels in one of train and test; it needs both or none")
    return splits


def _split(path: Path, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Arrays]:
    """Make two splits of one."""
    test = np.arange(len(images)) % TEST_SHARE == TEST_SHARE - 1
    if test.sum() < 2:  # one alone has no standard error
        raise UserError(f"{path} has {len(test)} images; it needs {2 * TEST_SHARE} for two splits")
    return {
        split: (images[rows], None if labels is None else labels[rows])
        for split, rows in zip(SPLITS, (~test, test), strict=True)
    }


def _folder(folder: Path, files: Iterable[Path]) -> Arrays:
    """Read those of these files that are in a folder, or in its folders 0 to 9, in the order of
    their names."""
    paths = [path for path in files if path.is_relative_to(folder)]
    names = {path.relative_to(folder).parent.as_posix() for path in paths}
    if not paths:
        raise UserError(f"{folder} holds no pictures")
    if not (names == {"."} or names <= set("0123456789")):
        raise UserError(
            f"{folder} has pictures in {', '.join(sorted(names))}; they should lie in it, or, with "
            "labels, in folders named 0 to 9"
        )
    labels = None if names == {"."} else np.array([path.parent.name for path in paths], np.uint8)
    images = [read_gray(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != SIDE:
            height, width = image.shape
            raise UserError(f"{path} has {width} x {height} pixels; it should have 28 x 28")
    return np.stack(images), labels


def _archive(path: Path) -> dict[str, Arrays]:
    """Read the splits of an .npz file, or all as one of an empty name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"cannot read {path} as an .npz file ({one_line(error)})") from None
    if "x" in arrays:
        return {"": _checked(path, arrays, "x", "y")}
    return {split: _checked(path, arrays, f"x_{split}", f"y_{split}") for split in SPLITS}


def _checked(path: Path, arrays: Mapping[str, np.ndarray], x: str, y: str) -> Arrays:
    """Return images and labels by their names. Raises UserError unless they are as they should."""
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
    """Read gray values `(height, width)`, uint8, upright and at most `LARGEST` a side, from a
    picture of any format of Pillow's but EPS, which another program would run. Raises UserError."""
    Image.init()
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=[*(set(Image.OPEN) - {"EPS"})]) as image,
        ):
            gray, alpha = _eight_bits(image).convert("LA").split()
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"cannot read {path} as a picture ({one_line(error)})") from None
    # What is transparent contrasts with what can be seen.
    seen = np.asarray(gray)[np.asarray(alpha) > 0]
    paper = Image.new("L", gray.size, 255 if seen.size and seen.mean() < 127.5 else 0)
    gray = Image.composite(gray, paper, alpha)
    gray.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(gray)


def _eight_bits(image: ImageFile) -> Image.Image:
    """Return an open picture upright, in 8 bits. Raises ValueError where it is not known which gray
    values are black and white, and for what Pillow 13.0 reads wrongly without an error."""
    tag, tags = ExifTags.Base, getattr(image, "tag_v2", {})  # a TIFF's
    if tags and image.n_frames > 1:
        raise ValueError(f"a TIFF of {image.n_frames} pages; save each as a picture of its own")
    if tags and image.getexif().get(tag.Orientation, 1) > 4:
        raise ValueError("a TIFF on its side; turn it, or save it as PNG")
    unknown = tags.get(tag.SampleFormat) == (2,)  # signed
    upright = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits of gray
        unknown |= "transparency" in image.info or tags.get(tag.BitsPerSample) == (12,)
        unknown |= tags.get(tag.PhotometricInterpretation) == 0  # white
        shares = np.asarray(upright) / WHITES.get((image.format, image.mode), np.nan)
        unknown |= not (shares.min() >= 0 and shares.max() <= 1)
        upright = None if unknown else Image.fromarray(np.rint(shares * 255).astype(np.uint8))
    if unknown:
        raise ValueError("black and white are unknown; save it with 8 bits, or as 16-bit PNG")
    return upright
