"""Frames: what the figures show of training, recorded while it runs."""

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vae.cli import UserError, one_line
from vae.data import PIXELS
from vae.files import written_whole

if TYPE_CHECKING:
    from torch import Tensor

    from vae.model import VAE

BLOCK = 32  # frames that a file holds together; they are compressed and read as one


def grid_axis(size: int, quantiles: tuple[float, float]) -> np.ndarray:
    """Latent coordinates along a side of the manifold, `(size,)`: quantiles of the prior."""
    return np.array([NormalDist().inv_cdf(share) for share in np.linspace(*quantiles, size)])


def latent_grid(axis: np.ndarray) -> np.ndarray:
    """Points of the manifold, `(size * size, 2)` float32, row by row: the column gives the first
    latent coordinate, the row the second, as in the post's notebook."""
    second, first = np.meshgrid(axis, axis, indexing="ij")
    return np.stack((first.ravel(), second.ravel()), axis=1).astype(np.float32)


class FrameRecorder:
    """Records the reconstructions of a few images and, given a grid, the digits decoded from it.

    `images` is `(reconstructions, 784)` uint8, `grid` `(points, latent)`. Gray is kept in `levels`
    levels: in a GIF 16 look like 256 and take a third of the space.
    """

    def __init__(self, images: np.ndarray, levels: int, grid: np.ndarray | None = None) -> None:
        self.images = images
        self.levels = levels
        self.grays = np.linspace(0, 255, levels).round().astype(np.uint8)
        self.grid = grid
        self.parts = {"reconstructions": slice(0, len(images))}
        if grid is not None:
            self.parts["manifold"] = slice(len(images), None)
        # Taken while an epoch runs, and after each: `(images and points, 784)` levels, uint8.
        self.frames: list[np.ndarray] = []
        self.ends: list[np.ndarray] = []

    def record(self, model: "VAE", noise: "Tensor", end: bool = False) -> None:
        """Take a frame; `noise` `(reconstructions, latent)` samples the images' posteriors."""
        # Here: PyTorch takes seconds to import, and who reads frames does not need it.
        import torch

        from exact.functional import gaussian_sample
        from vae.inference import encode, probabilities

        z = gaussian_sample(encode(model, self.images), noise)
        if self.grid is not None:
            z = torch.cat((z, torch.from_numpy(self.grid)))
        frame = quantized(probabilities(model, z), self.levels)
        (self.ends if end else self.frames).append(frame)

    def save(self, path: Path, frames: Sequence[np.ndarray]) -> None:
        """Write `frames`, or `ends`, as an Arrow file with one row per frame.

        Columns `reconstructions` `(pictures, 784)` and, where there is a grid, `manifold`
        `(points, 784)`: gray values of 0 to 255 as bytes, row by row. Pyarrow's own zstd gives the
        same bytes everywhere.
        """
        grays, columns = self.grays[np.stack(frames)], {}
        for name, rows in self.parts.items():
            kind, values = pa.binary(grays[0, rows].size), np.ascontiguousarray(grays[:, rows])
            columns[name] = pa.Array.from_buffers(kind, len(grays), [None, pa.py_buffer(values)])
        table = pa.table(columns)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            written_whole(path) as temporary,
            pa.ipc.new_file(temporary, table.schema, options=options) as file,
        ):
            file.write_table(table, max_chunksize=BLOCK)


def quantized(shares: np.ndarray, levels: int = 256) -> np.ndarray:
    """Round probabilities, float32, to a level from 0 to `levels` - 1, uint8."""
    with np.errstate(invalid="ignore"):  # NaN: training stops, and says why
        return np.rint(shares * np.float32(levels - 1)).astype(np.uint8)


def load_frames(path: Path, name: str, count: int | None = None) -> np.ndarray:
    """Read what `FrameRecorder.save` wrote as `name`, `(frames, n, 784)` uint8. Raises UserError
    when it is missing or damaged, or has another number of images per frame than `count`."""
    try:
        with pa.OSFile(str(path)) as file:
            column = pa.ipc.open_file(file).read_all()[name].combine_chunks()
        values = np.frombuffer(column.buffers()[1], np.uint8)
        frames = values.reshape(len(column), -1, PIXELS)
        if count not in (None, frames.shape[1]):
            raise ValueError(f"{frames.shape[1]} {name} a frame, not {count}")
        return frames
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} ({one_line(error)}); run `dvc repro`") from None
