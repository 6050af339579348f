"""A training's state after each epoch, so that one that was killed goes on with the same bits."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

from vae.cli import UserError
from vae.files import md5, write_json, written_whole

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


class Checkpoint:
    """The state in a folder, of the training with this fingerprint.

    The folder holds an index, written last and whole, that names the other files with their MD5 sums: each
    epoch's frames, and the latest state. `remove` it when the results are written.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.index = {"fingerprint": fingerprint, "losses": [], "frames": {}, "state": {}}

    @property
    def losses(self) -> list[list[float]]:
        """Of each epoch so far."""
        return self.index["losses"]

    def load(self, say: Callable[[str], None] = print) -> dict[str, Tensor] | None:
        """The state after the last finished epoch; None, saying why, when there is none that can be used."""
        path = self.folder / "index.json"
        if not path.exists():
            return None
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if index["fingerprint"] != self.index["fingerprint"]:
                say(
                    f"{self.folder}: a checkpoint of other parameters, data, code or PyTorch; starting anew"
                )
                return None
            files = {**index["frames"], **index["state"]}
            if damaged := [
                name for name, value in files.items() if md5(self.folder / name) != value
            ]:
                raise ValueError(f"{damaged[0]} has another MD5 sum")
            (state,) = index["state"]
            tensors = load_file(self.folder / state)
            frames = [load_file(self.folder / name)["frames"] for name in index["frames"]]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            say(f"{self.folder}: a damaged checkpoint ({error}); starting anew")
            return None
        self.index = index
        say(f"{self.folder}: going on after epoch {len(index['losses'])}")
        return {**tensors, "frames": torch.cat(frames)}

    def save(self, losses: list[float], state: dict[str, Tensor], frames: list[Tensor]) -> None:
        """Keep an epoch's losses, the state after it and the frames that it added.

        Raises UserError when a loss is not finite; the epoch before is kept.
        """
        epoch = len(self.index["losses"]) + 1
        if not all(map(math.isfinite, losses)):
            raise UserError(
                f"epoch {epoch}: a loss is not finite (reconstruction and KL, train and test: {losses} nats "
                "per image), so training stops; a lower train.learning_rate may help"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        added = self._write(f"frames-{epoch}.safetensors", {"frames": torch.stack(frames).cpu()})
        latest = self._write(
            f"state-{epoch}.safetensors", {name: t.cpu() for name, t in state.items()}
        )
        self.index["losses"].append(losses)
        self.index["frames"] |= added
        before, self.index["state"] = self.index["state"], latest
        write_json(self.folder / "index.json", self.index)
        for name in before:
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, tensors: dict[str, Tensor]) -> dict[str, str]:
        with written_whole(self.folder / name) as temporary:
            temporary.write_bytes(save(tensors))
        return {name: md5(self.folder / name)}
