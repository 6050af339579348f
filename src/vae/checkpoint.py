"""A training's state after each epoch, so that a killed one goes on with the same bits."""

import math
import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from vae.cli import UserError
from vae.files import write_tensors


class Checkpoint:
    """A folder with a file of frames for each epoch and, written after it, one of the latest state.

    Each is written whole. The state holds the training's identity; one of another is not used.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity
        self.losses = np.empty((0, 4))  # of each epoch so far

    def load(self) -> dict[str, np.ndarray] | None:
        """Read the state after the last finished epoch; None when none can be used, and say why."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, "np") as file:
                identity = (file.metadata() or {}).get("identity")
            if identity != self.identity:
                print(f"{path}: of other parameters, data, code or PyTorch; starting again")
                return None
            state = load_file(path)
            names = [f"frames-{epoch}.safetensors" for epoch in range(1, len(state["losses"]) + 1)]
            frames = np.concatenate([load_file(self.folder / name)["frames"] for name in names])
        except (OSError, KeyError, SafetensorError) as error:
            print(f"{path}: a damaged checkpoint ({error}); starting again")
            return None
        self.losses = state["losses"]
        print(f"{path}: going on after epoch {len(self.losses)}")
        return {**state, "frames": frames}

    def save(
        self, losses: list[float], state: dict[str, np.ndarray], frames: list[np.ndarray]
    ) -> None:
        """Write an epoch's losses, the state after it and the frames that it added.

        Raises UserError when a loss is not finite; the epoch before is kept.
        """
        epoch = len(self.losses) + 1
        if not all(map(math.isfinite, losses)):
            raise UserError(
                f"epoch {epoch}: a loss is not finite (reconstruction and KL, train and test: "
                f"{losses} nats per image), so training stops; a lower train.learning_rate may help"
            )
        self.losses = np.concatenate((self.losses, [losses]))
        self._write(f"frames-{epoch}.safetensors", {"frames": np.stack(frames)})
        self._write("state.safetensors", {**state, "losses": self.losses})

    def remove(self) -> None:
        """Delete the folder: the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        write_tensors(self.folder / name, tensors, {"identity": self.identity})
