"""A variational autoencoder of fully connected layers with a Bernoulli decoder."""

import json
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from vae.cli import UserError
from vae.data import PIXELS
from vae.files import write_json, written_whole
from vae.params import Architecture

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z | x): mean and log-variance, each `(batch, latent)`."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample `(batch, latent)` from standard normal `noise` of the same shape."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


class BernoulliVAE(nn.Module):
    """Encoder to a diagonal Gaussian posterior, decoder to the logits of independent pixels.

    `RandomStream.initialise` or `load_model` sets the weights.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        encoder_sizes = (PIXELS, *architecture.hidden_sizes)
        hidden_sizes = architecture.decoder_hidden_sizes
        if hidden_sizes is None:
            hidden_sizes = architecture.hidden_sizes[::-1]
        decoder_sizes = (architecture.latent_size, *hidden_sizes)
        self.latent_size = architecture.latent_size
        # Registered in the order in which the author's model drew its initial weights.
        self.encoder = _hidden_layers(encoder_sizes).append(
            nn.Linear(encoder_sizes[-1], 2 * architecture.latent_size)
        )
        self.decoder = _hidden_layers(decoder_sizes).append(nn.Linear(decoder_sizes[-1], PIXELS))

    def encode(self, images: Tensor) -> Posterior:
        """Posterior of `images`, `(batch, 784)` of 0.0 and 1.0."""
        return Posterior(*self.encoder(images).chunk(2, dim=1))

    def decode(self, latent: Tensor) -> Tensor:
        """Logits `(batch, 784)` of a pixel being 1, from `latent`, `(batch, latent)`."""
        return self.decoder(latent)


def _hidden_layers(sizes: tuple[int, ...]) -> nn.Sequential:
    # In place: what a ReLU takes is of no further use, neither here nor for its gradient.
    layers = [
        (nn.Linear(inputs, outputs), nn.ReLU(inplace=True)) for inputs, outputs in pairwise(sizes)
    ]
    return nn.Sequential(*chain.from_iterable(layers))


def save_model(model: BernoulliVAE, architecture: Architecture, path: Path) -> None:
    """Write the weights to `path`, and the architecture as JSON beside it."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(weights))
    write_json(path.with_suffix(".json"), architecture.model_dump())


def load_model(path: Path) -> BernoulliVAE:
    """Read what `save_model` wrote. Raises UserError when a file is missing, damaged or does not fit."""
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        model = BernoulliVAE(Architecture.model_validate(description))
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read the model {path} ({reason}); run `dvc repro`") from None
    return model.eval().requires_grad_(False)
