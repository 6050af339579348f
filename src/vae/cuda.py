"""Training steps on a GPU by PyTorch's own kernels: its bits are the GPU's, not the processor's."""

import os

import numpy as np
import torch

from vae import objective
from vae.cli import UserError
from vae.model import as_module
from vae.network import Network


class CudaTrainer:
    """What `vae.network.Trainer` does, on CUDA; `write_back` brings the values to the network."""

    def __init__(
        self,
        network: Network,
        most: int,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        beta: float = 1.0,
        *,
        device: str = "cuda",
    ) -> None:
        """Copy the network to the device. Raises UserError when there is none."""
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("params.yaml: train.device is cuda, and torch finds no device; use cpu")
        # Which cuBLAS reads when it starts: a workspace of fixed size for each stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        print(f"training on {device}: the bits are the device's, not those of dvc.lock", flush=True)
        self.network, self.beta, self.steps = network, beta, 0
        self.settings = (learning_rate, *betas, epsilon)
        self.module = as_module(network).to(device)
        self.parameters = list(self.module.parameters())
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.images: torch.Tensor | None = None

    def step(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Make one step of Adam, as `Trainer.step`; the images stay on the device."""
        device = self.parameters[0].device
        if self.images is None:
            self.images = torch.from_numpy(images).to(device)
        batch = self.images[torch.from_numpy(rows).to(device)].float()
        posterior = self.module.encode(batch)
        latent = posterior.sample(torch.from_numpy(noise).to(device))
        terms = objective.terms(self.module.decode(latent), posterior, batch)
        gradients = torch.autograd.grad((terms[0] + self.beta * terms[1]).sum(), self.parameters)
        self.steps += 1
        rate, beta1, beta2, epsilon = self.settings
        rate *= (1 - beta2**self.steps) ** 0.5 / (1 - beta1**self.steps)
        with torch.no_grad():
            moments = zip(self.parameters, gradients, self.first, self.second, strict=True)
            for value, gradient, first, second in moments:
                first.lerp_(gradient, 1 - beta1)
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                value.addcdiv_(first, second.sqrt().add_(epsilon), value=-rate)
        return terms.detach().double().cpu().numpy()

    def write_back(self) -> None:
        """Copy the device's values to the network."""
        state = {name: value.cpu().numpy() for name, value in self.module.state_dict().items()}
        self.network.restore(state)

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on."""
        named = {"values": self.parameters, "first": self.first, "second": self.second}
        found = {
            f"{name}.{number}": tensor.detach().cpu().numpy()
            for name, tensors in named.items()
            for number, tensor in enumerate(tensors)
        }
        return {**found, "steps": np.array(self.steps)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        named = {"values": self.parameters, "first": self.first, "second": self.second}
        with torch.no_grad():
            for name, tensors in named.items():
                for number, tensor in enumerate(tensors):
                    tensor.copy_(torch.from_numpy(state[f"{name}.{number}"]))
        self.steps = int(state["steps"])
        self.write_back()
