"""A variational autoencoder with a Bernoulli decoder, as a PyTorch module to build on, and the
terms of its objective: negative_elbo = reconstruction + kl, in nats per image."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae.network import Network
from vae.weights import load_network


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z | x): mean and log-variance, each `(batch, latent)`."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample `(batch, latent)` from standard normal `noise` of that shape."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


class BernoulliVAE(nn.Module):
    """Encoder to a diagonal Gaussian posterior, decoder to the logits of independent pixels.

    Layer sizes are `(784, ..., 2 latent)` and `(latent, ..., 784)`.
    """

    def __init__(self, encoder: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.decoder = _layers(encoder), _layers(decoder)

    def encode(self, images: Tensor) -> Posterior:
        """Posterior of `images`, `(batch, 784)` of 0.0 and 1.0."""
        return Posterior(*self.encoder(images).chunk(2, dim=1))

    def decode(self, latent: Tensor) -> Tensor:
        """Logits `(batch, 784)` of a pixel being 1, from `latent`, `(batch, latent)`."""
        return self.decoder(latent)

    def terms(self, images: Tensor, noise: Tensor) -> Tensor:
        """Reconstruction and KL of each image, `(2, batch)` nats, with one posterior sample each
        from standard normal `noise` `(batch, latent)`."""
        posterior = self.encode(images)
        return objective_terms(self.decode(posterior.sample(noise)), posterior, images)


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def objective_terms(logits: Tensor, posterior: Posterior, images: Tensor) -> Tensor:
    """-log p(x | z) and KL of each image, `(2, batch)` nats, from logits and images `(batch,
    784)`: the binary cross-entropy in the form that stays finite for any logit."""
    losses = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return torch.stack((losses.sum(dim=1), kl(posterior)))


def kl(posterior: Posterior) -> Tensor:
    """KL divergence of each posterior to the standard normal prior, `(batch,)` nats.

    Closed form: Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B.
    """
    mean, log_variance = posterior
    return -0.5 * (1 + log_variance - mean.square() - torch.exp(log_variance)).sum(dim=1)


def as_module(network: Network) -> BernoulliVAE:
    """Return a module with the network's values."""
    module = BernoulliVAE(*network.sizes)
    module.load_state_dict({name: torch.tensor(v) for name, v in network.named_values().items()})
    return module


def load_model(path: Path) -> BernoulliVAE:
    """Read what `save_network` wrote as a module. Raises UserError as `load_network`."""
    return as_module(load_network(path)).eval().requires_grad_(False)
