"""What a trained model says of images, in batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vae import objective
from vae.model import BernoulliVAE, Posterior


def posterior_means(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """Posterior means `(images, latent)` of images `(images, 784)`, uint8."""
    return torch.cat([posterior.mean for posterior in _posteriors(model, images, batch_size)]).numpy()


def kl_scores(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """KL divergence to the prior of each image's posterior, `(images,)` nats, from images as above."""
    posteriors = _posteriors(model, images, batch_size)
    return torch.cat([objective.kl(posterior) for posterior in posteriors]).double().numpy()


@torch.no_grad()
def _posteriors(model: BernoulliVAE, images: Tensor, batch_size: int) -> Iterator[Posterior]:
    for batch in images.split(batch_size):
        yield model.encode(batch.float())
