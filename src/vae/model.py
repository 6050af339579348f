"""A variational autoencoder of fully connected layers with a Bernoulli decoder."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from vae.cli import UserError, one_line
from vae.files import write_json, written_whole
from vae.params import Architecture

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z | x): mean and log-variance, each `(batch, latent)`."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample `(batch, latent)` from standard normal `noise` of that shape."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


class BernoulliVAE(nn.Module):
    """Encoder to a diagonal Gaussian posterior, decoder to the logits of independent pixels.

    `RandomStream.initialise` or `load_model` sets the weights.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.latent_size = architecture.latent_size
        # Registered in the order in which the author's model drew its initial weights.
        self.encoder = _layers(architecture.encoder_sizes)
        self.decoder = _layers(architecture.decoder_sizes)

    def encode(self, images: Tensor) -> Posterior:
        """Posterior of `images`, `(batch, 784)` of 0.0 and 1.0."""
        return Posterior(*self.encoder(images).chunk(2, dim=1))

    def decode(self, latent: Tensor) -> Tensor:
        """Logits `(batch, 784)` of a pixel being 1, from `latent`, `(batch, latent)`."""
        return self.decoder(latent)


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        # In place: what a ReLU takes is of no further use, neither here nor for its gradient.
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def save_model(model: BernoulliVAE, architecture: Architecture, path: Path) -> None:
    """Write the weights to `path`, and the architecture as JSON beside it."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(weights))
    write_json(path.with_suffix(".json"), architecture.model_dump(exclude={"preceded_by"}))


def load_model(path: Path) -> BernoulliVAE:
    """Read what `save_model` wrote. Raises UserError when a file is missing, damaged or unfit."""
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        model = BernoulliVAE(Architecture.model_validate(description))
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"cannot read the model {path} ({one_line(error)}); run `dvc repro`"
        ) from None
    return model.eval().requires_grad_(False)
