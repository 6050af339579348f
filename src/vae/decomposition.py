"""The parts of the KL, by latent dimension and by cause; and the loss in other units."""

import math
from typing import Any

import numpy as np
import torch

from exact import functional
from exact.random import Generator
from vae.data import PIXELS
from vae.importance import log_mean_exp
from vae.inference import decode, encode, means
from vae.model import VAE
from vae.objective import reconstruction_loss

# Samples of the aggregated posterior at which its density is computed.
POINTS = 1000
# A unit is active if the variance of its posterior mean over the images is larger (Burda, Grosse
# and Salakhutdinov, 2016, section 5.2).
ACTIVE = 0.01


def decomposition(model: VAE, images: np.ndarray, generator: Generator) -> dict[str, Any]:
    """Split the mean KL of images `(images, 784)`, in nats, rounded to six decimals.

    The KL is the mutual information of image and z, plus the KL to the prior of the aggregated
    posterior q(z), which is the mean of the posteriors: Hoffman and Johnson, ELBO surgery (2016).
    The information is estimated as the mean of log q(z | x) - log q(z), with one sample z for each
    of the first `POINTS` images; it is at most the log of the number of images. The second term
    is the difference.
    """
    posterior = encode(model, images)
    latent, count = posterior.shape[1] // 2, min(POINTS, len(images))
    columns = [posterior[:, [at, latent + at]] for at in range(latent)]
    by_dimension = [float(np.mean(functional.gaussian_kl(pair).numpy())) for pair in columns]
    points = functional.gaussian_sample(posterior[:count], generator.normal(count, latent))
    mean, log_variance = (part.contiguous().numpy() for part in posterior.chunk(2, dim=1))
    own, all_images = _densities(points.numpy(), mean, log_variance)
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
    """Return log densities, float64 nats, at `points` `(points, latent)`: of the Gaussian with the
    same index, and of the mixture of all Gaussians `(n, latent)`."""
    # exp(log_variance / 2), rounded to float32 as in sampling.
    logs = torch.from_numpy(log_variance)
    deviation = functional.gaussian_sample(
        torch.cat((torch.zeros_like(logs), logs), dim=1), torch.ones_like(logs)
    ).numpy()
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
        mixed.append(log_mean_exp(torch.from_numpy(exponents)).numpy())
    return np.concatenate(own), np.concatenate(mixed)


def units(model: VAE, images: np.ndarray, gray: np.ndarray) -> list[dict[str, Any]]:
    """Compute the loss of images `(n, 784)` at the posterior mean in other programs' units.

    `gray` are the same images as pixels of 0 to 255, uint8.
    """
    posterior, pixels = encode(model, images), torch.from_numpy(images)
    logits = decode(model, means(posterior))
    kl = float(np.mean(functional.gaussian_kl(posterior).numpy()))
    loss = float(np.mean(reconstruction_loss(logits, pixels).numpy()))
    light = gray.astype(np.float64) / 255
    shares = functional.sigmoid(logits).numpy().astype(np.float64)
    values = {
        "negative ELBO, nats per image": loss + kl,
        "negative ELBO, sum over a batch of 128": 128 * (loss + kl),
        "negative ELBO, nats per pixel": (loss + kl) / PIXELS,
    }
    if images.dtype == np.uint8:  # a density has no bits, and no cross-entropy
        # Cross-entropy is linear in the target: that of a black image minus logits times target.
        black = float(np.mean(reconstruction_loss(logits, torch.zeros_like(pixels)).numpy()))
        lit = float((logits.numpy() * light).sum()) / len(images)
        values |= {
            "negative ELBO, bits per pixel": (loss + kl) / PIXELS / math.log(2),
            "cross-entropy averaged over pixels + KL": loss / PIXELS + kl,
            "cross-entropy to gray pixels + KL": black - lit + kl,
        }
    for name, target in (("", images), (" to gray pixels", light)):
        error = float(np.square(shares - target).sum()) / len(images)
        values[f"squared error{name} + KL"] = error + kl
    return [{"loss": name, "value": round(value, 6)} for name, value in values.items()]
