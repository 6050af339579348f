"""The likelihood of test images, by which VAEs are compared, from importance samples."""

from collections.abc import Iterator

import numpy as np

from vae.draws import Generator
from vae.network import Network
from vae.terms import latent_samples, log_mean_exp, prior_ratio, reconstruction_terms

# Decoded at once, as images times samples: few enough for a processor's cache.
ROWS = 2000


def log_weights(
    network: Network, images: np.ndarray, samples: int, generator: Generator
) -> Iterator[np.ndarray]:
    """Yield log p(x | z) p(z) / q(z | x), `(samples, batch)` nats, float64, of samples z of the
    posterior q(z | x) of images `(images, 784)` uint8, batch by batch."""
    size = max(1, ROWS // samples)
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        mean, log_variance = network.encode(batch)
        noise = generator.normals(samples, *mean.shape)
        latent = latent_samples(mean, log_variance, noise)
        logits = network.decode(latent.reshape(-1, network.latent))
        weights = prior_ratio(noise, latent, log_variance)
        weights -= reconstruction_terms(logits.reshape(samples, *batch.shape), batch)
        yield weights


def log_likelihoods(
    network: Network, images: np.ndarray, samples: int, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate log p(x) of images as above, `(images,)` nats, and the effective sample sizes.

    The log of the mean over samples of the weight p(x | z) p(z) / q(z | x): Burda, Grosse and
    Salakhutdinov, Importance Weighted Autoencoders (2016), equation 8. It is below log p(x) on
    average, the less so the more samples there are. The effective size, from 1 to `samples`, is the
    weights' sum squared over the sum of their squares (Kong 1992).
    """
    estimates, sizes = [], []
    for weights in log_weights(network, images, samples, generator):
        estimates.append(log_mean_exp(weights))
        sizes.append(samples * np.exp(2 * estimates[-1] - log_mean_exp(2 * weights)))
    return np.concatenate(estimates), np.concatenate(sizes)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of `(images,)`, and its standard error as that of a sample of all there could be."""
    mean = float(np.mean(values))
    return mean, float(np.sqrt(np.square(values - mean).sum() / (len(values) - 1) / len(values)))
