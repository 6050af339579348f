"""The likelihood of test images, by which VAEs are compared, from importance samples."""

from vae.draws import Generator
from vae.network import Network
from vae.terms import latent_samples, log_mean_exp, prior_ratio, reconstruction_terms

import numpy as np

# Decoded at once, as images times samples: few enough for a processor's cache.
ROWS = 2000


def log_likelihoods(
    network: Network, images: np.ndarray, samples: int, generator: Generator
) -> np.ndarray:
    """Estimate log p(x) of images `(images, 784)` uint8: `(images,)` nats, float64.

    The log of the mean over samples z of the posterior q(z | x) of p(x | z) p(z) / q(z | x):
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (2016), equation 8. It is
    below log p(x) on average, the less so the more samples there are.
    """
    estimates, size = [], max(1, ROWS // samples)
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        mean, log_variance = network.encode(batch)
        noise = generator.normals(samples, *mean.shape)
        latent = latent_samples(mean, log_variance, noise)
        logits = network.decode(latent.reshape(-1, network.latent))
        weights = prior_ratio(noise, latent, log_variance)
        weights -= reconstruction_terms(logits.reshape(samples, *batch.shape), batch)
        estimates.append(log_mean_exp(weights))
    return np.concatenate(estimates)
