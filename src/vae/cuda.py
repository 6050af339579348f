"""Training steps on a GPU by PyTorch's own kernels: its bits are the GPU's, not the processor's."""

import math
import os

import numpy as np
import torch

from vae.cli import UserError
from vae.model import as_module
from vae.network import Network
from vae.params import Train


class CudaTrainer:
    """What `vae.network.Trainer` does, on CUDA; `write_back` brings the values to the network."""

    def __init__(self, network: Network, settings: Train, device: str = "cuda") -> None:
        """Copy the network to the device. Raises UserError when there is none."""
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("params.yaml: train.device is cuda, and torch finds no device; use cpu")
        # Which cuBLAS reads when it starts: a workspace of fixed size for each stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        print(f"training on {device}: the bits are the device's, not those of dvc.lock", flush=True)
        self.network, self.device, self.settings, self.steps = network, device, settings, 0
        self.module = as_module(network).to(device)
        rate, betas = settings.learning_rate, settings.adam_betas
        self.adam = torch.optim.Adam(self.module.parameters(), rate, betas)
        self.images: torch.Tensor | None = None

    def step(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Make one step of Adam, as `Trainer.step`; the images stay on the device."""
        if self.images is None:
            self.images = torch.from_numpy(images).to(self.device)
        chosen, noise = (torch.from_numpy(array).to(self.device) for array in (rows, noise))
        terms = self.module.terms(self.images[chosen].float(), noise)
        self.adam.zero_grad()
        (terms[0] + self.settings.beta * terms[1]).sum().backward()
        self.steps += 1
        # PyTorch adds it after the bias correction, `Trainer` before.
        unbiased = math.sqrt(1 - self.settings.adam_betas[1] ** self.steps)
        self.adam.param_groups[0]["eps"] = self.settings.adam_epsilon / unbiased
        self.adam.step()
        return terms.detach().double().cpu().numpy()

    def write_back(self) -> None:
        """Copy the device's values to the network."""
        values = self.module.state_dict().items()
        self.network.restore({name: value.cpu().numpy() for name, value in values})

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on, after one step at least."""
        found = self.module.state_dict()
        for number, moments in self.adam.state_dict()["state"].items():
            found |= {f"{number}.{name}": value for name, value in moments.items()}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        tensors = {name: torch.tensor(value) for name, value in state.items()}
        names = self.module.state_dict().keys()
        self.module.load_state_dict({name: tensors[name] for name in names})
        moments = {
            number: {
                name: tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")
            }
            for number in range(len(names))
        }
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})
        self.steps = int(state["0.step"])
        self.write_back()
