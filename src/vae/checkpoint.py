"""A training's state after each epoch, so that a killed one can be resumed with the same bits."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vae.files import write_tensors


class Checkpoint:
    """A folder with a file of frames for each epoch and, written after it, one of the latest state.

    Each is written whole. The state holds the training's identity; one of another is not used.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = torch.tensor(list(identity.encode()), dtype=torch.uint8)
        # Until `remove` it says that a training has begun and not ended.
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Tensor] | None:
        """Read what `save` wrote after the last finished epoch, with all `frames` and `ends`.

        None when nothing can be used; then this says why, and removes it.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        try:
            state = load_file(path)
            if not torch.equal(state["identity"], self.identity):
                raise ValueError("of other parameters, data, code or PyTorch")
            names = [f"frames-{epoch}.safetensors" for epoch in range(1, len(state["losses"]) + 1)]
            parts = [load_file(self.folder / name) for name in names]
            for name in ("frames", "ends"):
                state[name] = torch.cat([part[name] for part in parts])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            print(f"{path}: not used ({error}); starting again")
            self.remove()
            return None
        print(f"{path}: continuing after epoch {len(names)}")
        return state

    def save(
        self, state: Mapping[str, Tensor], frames: Sequence[np.ndarray], ends: Sequence[np.ndarray]
    ) -> None:
        """Write the frames that an epoch added, then the state, with `losses` of each epoch."""
        epoch = len(state["losses"])
        added = {"frames": np.stack(frames), "ends": np.stack(ends)}
        write_tensors(self.folder / f"frames-{epoch}.safetensors", added)
        tensors = {**state, "identity": self.identity}
        arrays = {name: tensor.cpu().contiguous().numpy() for name, tensor in tensors.items()}
        write_tensors(self.folder / "state.safetensors", arrays)

    def remove(self) -> None:
        """Delete the folder: the results are written, or it is of no use."""
        shutil.rmtree(self.folder, ignore_errors=True)
