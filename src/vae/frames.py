"""Frames: what the figures need of training's course, recorded while it runs."""

import zipfile
import zlib
from pathlib import Path

from vae.cli import UserError
from vae.files import written_whole
from vae.network import Network
from vae.terms import latent_samples, probabilities

import numpy as np
from scipy.special import ndtri


def grid_axis(size: int, quantiles: tuple[float, float]) -> np.ndarray:
    """Latent coordinates along a side of the manifold, `(size,)`: evenly spaced quantiles of the
    prior."""
    return ndtri(np.linspace(*quantiles, size))


def latent_grid(axis: np.ndarray) -> np.ndarray:
    """Points of the manifold, `(size * size, 2)` float32, row by row: the column gives the first
    latent coordinate, the row the second, as in the post's notebook."""
    second, first = np.meshgrid(axis, axis, indexing="ij")
    return np.stack((first.ravel(), second.ravel()), axis=1).astype(np.float32)


class FrameRecorder:
    """Records the reconstructions of a few images and, given a grid, the digits decoded from it.

    `images` is `(pictures, 784)` uint8, `grid` `(points, latent)`; a frame decodes both in one
    pass. The figures are GIFs, so `levels` levels of gray are kept: 16 look the same and take a
    third of the space of 256.
    """

    def __init__(self, images: np.ndarray, levels: int, grid: np.ndarray | None = None) -> None:
        self.images = np.ascontiguousarray(images)
        self.levels = levels
        self.grays = np.linspace(0, 255, levels).round().astype(np.uint8)
        self.grid = grid
        self.parts = {"reconstructions": slice(0, len(images))}
        if grid is not None:
            self.parts["manifold"] = slice(len(images), None)
        self.frames: list[np.ndarray] = []  # `(pictures and points, 784)` levels of gray, uint8

    def record(self, network: Network, noise: np.ndarray) -> None:
        """Take a frame; `noise` `(pictures, latent)` samples the posteriors of the images."""
        latent = latent_samples(*network.encode(self.images), noise)
        if self.grid is not None:
            latent = np.concatenate((latent, self.grid))
        self.frames.append(quantized(network.decode(latent), self.levels))

    def save(self, path: Path) -> None:
        """Write the frames as a compressed .npz: `reconstructions` `(frames, pictures, 784)` and,
        where there is a grid, `manifold` `(frames, points, 784)`, gray values of 0 to 255 as
        uint8."""
        # np.savez_compressed would take four times as long, to save a tenth of the space.
        with (
            written_whole(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, rows in self.parts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    shape = (len(self.frames), *self.frames[0][rows].shape)
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for frame in self.frames:
                        file.write(self.grays[frame[rows]])


def quantized(logits: np.ndarray, levels: int = 256) -> np.ndarray:
    """Probabilities of `logits`, rounded to a level from 0 to `levels` - 1, as uint8."""
    return np.rint(probabilities(logits) * np.float32(levels - 1)).astype(np.uint8)


def load_frames(path: Path, name: str) -> np.ndarray:
    """Read what `FrameRecorder.save` wrote under `name`. Raises UserError when it is missing or
    damaged."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file)
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None
