"""What is in the ELBO: KL by latent dimension and by its causes; and the loss in others' units."""

import math
from typing import Any

import numpy as np

from vae.data import PIXELS
from vae.draws import Generator
from vae.network import Network
from vae.terms import kl_terms, latent_samples, log_mean_exp, probabilities, reconstruction_terms

# Samples of the aggregated posterior, at which its density is found.
POINTS = 1000
# A unit is active where the variance of its posterior mean over the images is more (Burda, Grosse
# and Salakhutdinov, 2016, section 5.2).
ACTIVE = 0.01


def decomposition(network: Network, images: np.ndarray, generator: Generator) -> dict[str, Any]:
    """Split the mean KL of images `(images, 784)` uint8, in nats, rounded to six decimals.

    KL to the prior = mutual information of image and latent point + KL to the prior of the
    aggregated posterior q(z), the mean of all images' posteriors: Hoffman and Johnson, ELBO surgery
    (2016). The information is estimated as the mean of log q(z | x) - log q(z) over one sample z of
    the posteriors of the first `POINTS` images, with q(z) from all; it is at most the log of their
    number. The last term is what remains.
    """
    mean, log_variance = network.encode(images)
    columns = (np.ascontiguousarray(part.T)[:, :, None] for part in (mean, log_variance))
    by_dimension = [float(np.mean(kl_terms(*column))) for column in zip(*columns, strict=True)]
    count = min(POINTS, len(images))
    noise = generator.normals(count, network.latent)
    points = latent_samples(mean[:count], log_variance[:count], noise)
    own, all_images = _densities(points, mean, log_variance)
    kl, information = sum(by_dimension), float(np.mean(own - all_images))
    return {
        "kl": round(kl, 6),
        "mutual_information": round(information, 6),
        "most_information": round(math.log(len(images)), 6),
        "aggregated_kl": round(kl - information, 6),
        "active_units": int((np.var(mean.astype(np.float64), axis=0) > ACTIVE).sum()),
        "kl_by_dimension": [round(value, 6) for value in by_dimension],
    }


def _densities(
    points: np.ndarray, mean: np.ndarray, log_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log density, float64 nats, at each point `(points, latent)`: of the Gaussian of its number,
    and of the mean of all Gaussians `(n, latent)`."""
    deviation = latent_samples(np.zeros_like(mean), log_variance, np.ones_like(mean))
    precision, centre = 1 / np.square(deviation, dtype=np.float64), mean.astype(np.float64)
    volume = -0.5 * (log_variance.astype(np.float64) + math.log(2 * math.pi)).sum(axis=1)
    own, mixed = [], []
    for first in range(0, len(points), 100):
        block = points[first : first + 100]
        exponents = np.repeat(volume[:, None], len(block), axis=1)
        for at in range(mean.shape[1]):
            distances = np.square(block[:, at] - centre[:, at, None])
            exponents -= 0.5 * precision[:, at, None] * distances
        own.append(exponents[first : first + len(block)].diagonal())
        mixed.append(log_mean_exp(exponents))
    return np.concatenate(own), np.concatenate(mixed)


def units(network: Network, images: np.ndarray, gray: np.ndarray) -> list[dict[str, Any]]:
    """The loss of images `(n, 784)` as other programs would print it, rounded to six decimals.

    `images` are 0 or 1, `gray` the same ones with values of 0 to 255, uint8; decoded at the
    posterior mean.
    """
    mean, log_variance = network.encode(images)
    logits = network.decode(mean)
    kl = float(np.mean(kl_terms(mean, log_variance)))
    binary = float(np.mean(reconstruction_terms(logits, images)))
    # The cross-entropy is linear in the target: that of black, less the logits of what is light.
    black = float(np.mean(reconstruction_terms(logits, np.zeros_like(images))))
    light = gray.astype(np.float64) / 255
    shares = probabilities(logits).astype(np.float64)
    values = {
        "negative ELBO, nats per image": binary + kl,
        "negative ELBO, sum over a batch of 128": 128 * (binary + kl),
        "negative ELBO, nats per pixel": (binary + kl) / PIXELS,
        "negative ELBO, bits per pixel": (binary + kl) / PIXELS / math.log(2),
        "cross-entropy averaged over pixels + KL": binary / PIXELS + kl,
        "cross-entropy to gray pixels + KL": black
        - float((logits * light).sum()) / len(images)
        + kl,
        "squared error + KL": float(np.square(shares - images).sum()) / len(images) + kl,
        "squared error to gray pixels + KL": float(np.square(shares - light).sum()) / len(images)
        + kl,
    }
    return [{"loss": name, "value": round(value, 6)} for name, value in values.items()]
