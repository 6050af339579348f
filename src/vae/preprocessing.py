"""Pictures of digits, brought into MNIST's form.

That form (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
Recognition", section III.A): a light digit on black, scaled with its proportions into a box of
20 x 20 pixels, with soft edges, its centre of mass in the middle of 28 x 28.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import center_of_mass, label, maximum_filter

from vae.cli import UserError, one_line, printable
from vae.custom_data import read_gray
from vae.data import IMAGE_SIDE, PIXELS

POLARITIES = ("auto", "dark-on-light", "light-on-dark")
BOX = 20
FEWEST = 20  # pixels; MNIST's thinnest digits have some more
FAINTEST = 24  # gray values; smaller differences from the background are no ink
PAPER = 170  # a border of a higher mean is paper; that of an image of coin flips is lower


class Picture(NamedTuple):
    """A user's image, uint8: gray values `(height, width)`, and pixels `(784,)` in MNIST's form,
    for which it was `inverted` or not."""

    name: str
    gray: np.ndarray
    pixels: np.ndarray
    inverted: bool

    def notes(self, threshold: int) -> list[str]:
        """List why this may not be the picture of one digit."""
        ink = self.pixels.reshape(IMAGE_SIDE, IMAGE_SIDE) >= threshold
        count, light = ink.sum(), ink.mean()
        sizes = np.bincount(label(ink, np.ones((3, 3)))[0].ravel())[1:]
        figures = (4 * sizes >= sizes.max(initial=1)).sum()
        notes = {
            "there is no figure on it": count == 0,
            f"only {count} pixels are left of it": 0 < count < FEWEST,
            f"it has {figures} separate figures": 1 < figures <= 9,
            "more of it is light than dark; is its digit dark (--polarity)?": light > 0.6,
        }
        return [note for note, applies in notes.items() if applies]


def read_pictures(path: Path, polarity: str) -> list[Picture]:
    """Read a picture file (see `read_gray`), or the images of a .npy file. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} is no file; name a picture or a .npy array")
    images = _read_array(path) if path.suffix.lower() == ".npy" else [read_gray(path)]
    name = printable(path)
    names = [f"{name}[{number}]" for number in range(len(images))] if len(images) > 1 else [name]
    pairs = zip(names, images, strict=True)
    return [Picture(name, gray, *as_mnist(gray, polarity)) for name, gray in pairs]


def _read_array(path: Path) -> np.ndarray:
    """Read gray values `(images, 28, 28)`, uint8, from a .npy file. Raises UserError."""
    try:
        # Reads no pickle, and takes no more memory than the file.
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header fails in many ways
        raise UserError(f"cannot read {path} as a .npy array ({one_line(error)})") from None
    side = (IMAGE_SIDE, IMAGE_SIDE)
    shaped = array.shape[-2:] == side or array.shape[-1:] == (PIXELS,)
    if not (shaped and array.size and (array.dtype == np.uint8 or array.dtype.kind in "fb")):
        raise UserError(
            f"{path} holds {array.dtype} of the shape {array.shape}; it should be uint8 (0-255), "
            "float (0.0-1.0) or bool, of the shape (28, 28), (n, 28, 28) or (n, 784)"
        )
    # Binarized images are uint8 too, of 0 and 1.
    white = 255 if array.dtype == np.uint8 and array.max() > 1 else 1
    if not (array.min() >= 0 and array.max() <= white):
        raise UserError(f"{path} holds NaN or values outside 0.0 to 1.0; divide gray values by 255")
    return np.round(array.reshape(-1, *side) * (255 / white)).astype(np.uint8)


def as_mnist(gray: np.ndarray, polarity: str) -> tuple[np.ndarray, bool]:
    """Bring a picture `(height, width)`, uint8, into MNIST's form `(784,)`; say if it was inverted.

    A picture of 28 x 28 equal squares keeps their values. In others, ink is what differs from the
    background, which is the median of the border.
    """
    scale = -(-len(gray) // IMAGE_SIDE)
    small = gray[::scale, ::scale]
    squares = small.shape == (IMAGE_SIDE, IMAGE_SIDE) and gray.min() < gray.max()
    squares = squares and np.array_equal(small.repeat(scale, 0).repeat(scale, 1), gray)
    border = np.concatenate((gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]))
    ink = gray - np.median(border)
    strongest = ink[np.abs(ink) > np.abs(ink).max() / 2]
    dark = bool(border.mean() > PAPER if squares else strongest.sum() < 0)
    dark = dark if polarity == "auto" else polarity == "dark-on-light"
    if squares:
        return (255 - small if dark else small).ravel(), dark
    ink = -ink if dark else ink
    if ink.max() < FAINTEST:
        return np.zeros(PIXELS, np.uint8), dark
    ink = np.uint8((ink * (255 / ink.max())).clip(0).round())
    rows, columns = (np.flatnonzero((ink >= 128).any(axis)) for axis in (1, 0))
    digit = _boxed(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    down, right = np.subtract((IMAGE_SIDE, IMAGE_SIDE), digit.shape)
    top, left = np.round(IMAGE_SIDE / 2 - np.array(center_of_mass(digit))).astype(int)
    top, left = np.clip((top, left), 0, (down, right))
    return np.pad(digit, ((top, down - top), (left, right - left))).ravel(), dark


def _boxed(ink: np.ndarray) -> np.ndarray:
    """Scale ink `(height, width)`, uint8, so that its longer side has 20 pixels, each a mean.

    A thin line, which would lose most of its pixels, is first made wider by one and a half of
    these pixels: with less, some lines break.
    """
    size = [max(1, round(side * BOX / max(ink.shape))) for side in ink.shape[::-1]]
    wide = maximum_filter(ink, int(1.5 * max(ink.shape) / BOX) + 1)
    thin, wide = (np.asarray(Image.fromarray(each).resize(size)) for each in (ink, wide))
    return thin if 2 * (thin >= 128).sum() >= (wide >= 128).sum() else wide
