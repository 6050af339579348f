"""The user's own pictures in MNIST's form, and PNG files made from them.

That form: 28 x 28 pixels, a light digit on black, scaled with its proportions into a box of 20 x 20, its
centre of mass in the middle (http://yann.lecun.com/exdb/mnist/).
"""

import tokenize
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae.cli import UserError
from vae.data import IMAGE_SIDE, PIXELS
from vae.files import written_whole
from vae.model import BernoulliVAE, load_model

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

POLARITIES = ("auto", "dark-on-light", "light-on-dark")
BOX = 20
# A border of a higher mean is paper: coin flips of black and white do not come near it.
PAPER = 170
# Where nothing differs from its background by as many gray values, that is noise, and the picture blank.
FAINTEST = 24
# Larger pictures are reduced to this side first: ten times MNIST's detail, and noise averages out.
LARGEST_SIDE = 280


class Picture(NamedTuple):
    """Gray values `(height, width)` as read, and as an image of MNIST `(784,)`, uint8, inverted or not."""

    name: str
    gray: np.ndarray
    pixels: np.ndarray
    inverted: bool


def read_pictures(paths: Sequence[Path], polarity: str) -> list[Picture]:
    """The pictures in PNG, JPEG and .npy files. Raises UserError naming the first that cannot be read."""
    found = []
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path} is no file; it should be a PNG or JPEG picture or a .npy array"
            )
        images = (
            _read_array(path) if path.suffix.lower() == ".npy" else [_read_image(path, polarity)]
        )
        # What is no UTF-8 in a name can be neither printed nor drawn.
        name = str(path).encode(errors="backslashreplace").decode()
        for number, gray in enumerate(images):
            part = f"[{number}]" if len(images) > 1 else ""
            found.append(Picture(name + part, gray, *as_mnist(gray, polarity)))
    return found


def load_trained(path: Path) -> BernoulliVAE:
    """`load_model`, which says what to do where nothing was trained yet. Raises UserError."""
    if not path.exists():
        raise UserError(
            f"there is no trained model {path}: run `make repro`, or name another with --model"
        )
    return load_model(path)


def write_picture(
    path: Path, inputs: Sequence[Path], save: Callable[[Path, Any], None], picture: Any
) -> None:
    """Let `save` write a PNG file, whole, over an older one but none of `inputs`. Raises UserError."""
    if path.suffix.lower() != ".png":
        raise UserError(f"cannot write {path}: it is a PNG file, so its name should end in .png")
    if not path.parent.is_dir():
        raise UserError(
            f"cannot write {path}: there is no folder {path.parent}; make it, or name another"
        )
    if path.exists() and any(path.samefile(other) for other in inputs):
        raise UserError(f"cannot write {path}: it is an input; name another file")
    try:
        with written_whole(path) as temporary:
            save(temporary, picture)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); name another file"
        ) from None


def _read_array(path: Path) -> np.ndarray:
    """Gray values `(images, 28, 28)`, uint8, from a .npy file. Raises UserError."""
    try:
        # Mapped, so that a header cannot ask for memory that the file does not fill; and without pickle.
        array = np.lib.format.open_memmap(path, mode="r")
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        tokenize.TokenError,
    ) as error:
        raise UserError(
            f"cannot read {path} as a .npy array ({' '.join(str(error).split())})"
        ) from None
    count = array.shape[:1]
    shapes = ((IMAGE_SIDE, IMAGE_SIDE), (*count, IMAGE_SIDE, IMAGE_SIDE), (*count, PIXELS))
    if array.shape not in shapes or not array.size:
        raise UserError(
            f"{path} has the shape {array.shape}; it should be (28, 28), (n, 28, 28) or (n, 784)"
        )
    if array.dtype != np.uint8 and array.dtype.kind not in "fb":
        raise UserError(
            f"{path} holds {array.dtype}; it should be uint8 (0-255), float (0.0-1.0) or bool"
        )
    if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"{path} holds values outside 0.0 to 1.0, or NaN; divide gray values by 255"
        )
    # Images binarized before are uint8 too, of 0 and 1, which as gray values would be black.
    scale = np.float64(1 if array.max() > 1 else 255)
    return np.round(array.reshape(-1, IMAGE_SIDE, IMAGE_SIDE) * scale).astype(np.uint8)


def _read_image(path: Path, polarity: str) -> np.ndarray:
    """Gray values `(height, width)`, 0.0 to 255.0, of a PNG or JPEG file. Raises UserError."""
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=("PNG", "JPEG")) as image,
        ):
            if image.mode.startswith("I"):
                # 16 bits of gray, which Pillow would cut off at 255.
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read {path} as PNG or JPEG ({' '.join(str(error).split())})"
        ) from None
    upright.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    gray, alpha = (np.asarray(band, np.float64) for band in upright.convert("LA").split())
    # What is transparent becomes what the visible part stands out from.
    dark = polarity == "dark-on-light" or (
        polarity == "auto" and (gray * alpha).sum() < alpha.sum() * 127.5
    )
    return (gray * alpha + 255 * dark * (255 - alpha)) / 255


def as_mnist(gray: np.ndarray, polarity: str) -> tuple[np.ndarray, bool]:
    """A picture `(height, width)` of 0 to 255 as an image of MNIST `(784,)`, uint8, and whether inverted.

    28 x 28 pixels, or as many equal squares, are taken as they are, or inverted where the border is light. Of
    others, the ink is what differs from the background, cropped without specks where it is half as strong as
    at most. A picture of one colour has none.
    """
    scale = -(-len(gray) // IMAGE_SIDE)
    small = gray[::scale, ::scale]
    same = small.shape == (IMAGE_SIDE, IMAGE_SIDE) and np.array_equal(
        small.repeat(scale, axis=0).repeat(scale, axis=1), gray
    )
    if same and np.ptp(gray):
        dark = polarity == "dark-on-light" or (
            polarity == "auto" and bool(_border(small).mean() > PAPER)
        )
        return np.uint8(255 - small if dark else small).ravel(), dark
    ink = gray - _background(gray)
    far = np.abs(ink) > np.abs(ink).max() / 2
    dark = polarity == "dark-on-light" or (polarity == "auto" and bool(ink[far].sum() < 0))
    ink = -ink if dark else ink
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    if ink.max() >= FAINTEST:
        ink = np.uint8((ink * (255 / ink.max())).clip(0).round())
        parts, _ = ndimage.label(ink >= 128)
        sizes = np.bincount(parts[parts > 0])
        (crop,) = ndimage.find_objects(
            np.isin(parts, np.flatnonzero(sizes * 20 >= sizes.max())).astype(int)
        )
        digit = Image.fromarray(ink[crop])
        size = [max(1, round(side * BOX / max(digit.size))) for side in digit.size]
        digit = np.asarray(digit.resize(size, Image.Resampling.BICUBIC))
        centre, room = (
            np.array(ndimage.center_of_mass(digit)),
            np.subtract(image.shape, digit.shape),
        )
        top, left = (IMAGE_SIDE / 2 - centre).round().clip(0, room).astype(int)
        image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image.ravel(), dark


def _background(gray: np.ndarray) -> np.ndarray:
    """Uneven light: a quadratic surface through what is nearer to it than half of the farthest pixel."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in gray.shape), indexing="ij")
    terms = np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), axis=-1)
    surface = np.full(gray.shape, np.median(_border(gray)))
    for _ in range(4):
        distance = np.abs(gray - surface)
        # In a picture of one colour, the farthest is so by rounding.
        near = distance <= max(distance.max() / 2, 1)
        surface = terms @ np.linalg.lstsq(terms[near], gray[near], rcond=None)[0]
    return surface


def _border(gray: np.ndarray) -> np.ndarray:
    return np.concatenate((gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]))
