"""What a trained model says of images, in batches."""

from collections.abc import Iterator

from vae import objective
from vae.data import PIXELS
from vae.model import BernoulliVAE, Posterior

import numpy as np
import torch
from torch import Tensor


def noise_images(generator: np.random.RandomState, count: int) -> np.ndarray:
    """Images of fair coin flips, `(count, 784)`, uint8, drawn as the post drew its one."""
    return generator.randint(0, 2, (count, PIXELS)).astype(np.uint8)


def posterior_means(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """Posterior means `(images, latent)` of images `(images, 784)`, uint8."""
    return torch.cat([posterior.mean for posterior in _posteriors(model, images, batch_size)]).numpy()


def kl_scores(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """KL divergence to the prior of each image's posterior, `(images,)` nats, from images as above."""
    posteriors = _posteriors(model, images, batch_size)
    return torch.cat([objective.kl(posterior) for posterior in posteriors]).double().numpy()


@torch.no_grad()
def reconstruct(model: BernoulliVAE, images: np.ndarray) -> np.ndarray:
    """Probabilities `(images, 784)` of the pixels at the posterior mean of images `(images, 784)`, uint8."""
    return torch.sigmoid(model.decode(model.encode(torch.from_numpy(images).float()).mean)).numpy()


@torch.no_grad()
def anomaly_scores(model: BernoulliVAE, images: np.ndarray, batch_size: int = 1000) -> dict[str, np.ndarray]:
    """By name, scores `(images,)` in nats of images `(images, 784)`, the higher the stranger.

    `kl` as above; `reconstruction`, -log p(x | z) at the posterior mean; `negative_elbo`, their sum.
    """
    terms = []
    for batch in torch.from_numpy(images).split(batch_size):
        pixels = batch.float()
        posterior = model.encode(pixels)
        terms.append(objective.terms(model.decode(posterior.mean), posterior, pixels))
    reconstruction, kl = torch.cat(terms, dim=1).double().numpy()
    return {"kl": kl, "reconstruction": reconstruction, "negative_elbo": reconstruction + kl}


@torch.no_grad()
def _posteriors(model: BernoulliVAE, images: Tensor, batch_size: int) -> Iterator[Posterior]:
    for batch in images.split(batch_size):
        yield model.encode(batch.float())
