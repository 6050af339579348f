"""The log-likelihood of images under a VAE, estimated by importance sampling."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from exact import functional
from exact.random import Generator
from vae.inference import decode, encode
from vae.model import VAE
from vae.objective import reconstruction_loss

# Images times samples that are decoded at once: they fit a processor's cache.
ROWS = 2000


def log_weights(
    model: VAE, images: np.ndarray, samples: int, generator: Generator
) -> Iterator[Tensor]:
    """Yield log p(x | z) p(z) / q(z | x), `(samples, batch)` nats, float64, with samples z of the
    posteriors q(z | x), for each batch of `images` `(images, 784)`."""
    size = max(1, ROWS // samples)
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        posterior = encode(model, batch)
        _, log_variance = posterior.chunk(2, dim=1)
        noise = generator.normal(samples, *log_variance.shape)
        z = functional.gaussian_sample(posterior, noise)
        logits = decode(model, z.view(-1, z.shape[-1])).view(samples, *batch.shape)
        reconstruction = reconstruction_loss(logits, torch.from_numpy(batch))
        yield log_prior_ratio(noise, z, log_variance) - reconstruction


def log_prior_ratio(noise: Tensor, z: Tensor, log_variance: Tensor) -> Tensor:
    """Return log p(z) - log q(z | x), `(samples, batch)`, for z `(samples, batch, latent)`."""
    noise, z = noise.double(), z.double()
    parts = noise * noise - z * z + log_variance
    return 0.5 * functional.sum(parts.movedim(-1, 0))


def log_mean_exp(values: Tensor) -> Tensor:
    """Return the log of the mean of exp over the first axis of `values` `(samples, n)`, float64."""
    most = values.amax(dim=0)
    return most + functional.log(functional.sum(functional.exp(values - most)) / len(values))


def log_likelihoods(
    model: VAE, images: np.ndarray, samples: int, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate log p(x), `(images,)` nats, and return it with the effective sample sizes.

    The estimate is the log of the mean weight p(x | z) p(z) / q(z | x): Burda, Grosse and
    Salakhutdinov, Importance Weighted Autoencoders (2016), equation 8. On average it is below
    log p(x); more samples come nearer. The effective size, from 1 to `samples`, is the squared sum
    of the weights over the sum of their squares (Kong 1992).
    """
    estimates, sizes = [], []
    for weights in log_weights(model, images, samples, generator):
        estimates.append(log_mean_exp(weights).numpy())
        squares = log_mean_exp(2 * weights).numpy()
        sizes.append(samples * np.exp(2 * estimates[-1] - squares))
    return np.concatenate(estimates), np.concatenate(sizes)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of `(images,)` and its standard error."""
    mean = float(np.mean(values))
    return mean, float(np.sqrt(np.square(values - mean).sum() / (len(values) - 1) / len(values)))
