"""The terms of the objective: negative_elbo = reconstruction + kl, in nats per image."""

import torch
from torch import Tensor
from torch.nn import functional

from vae.model import Posterior


def terms(logits: Tensor, posterior: Posterior, images: Tensor) -> Tensor:
    """Reconstruction and KL of each image, `(2, batch)` nats."""
    return torch.stack((reconstruction(logits, images), kl(posterior)))


def reconstruction(logits: Tensor, images: Tensor) -> Tensor:
    """-log p(x | z) of each image, `(batch,)` nats, from logits and images `(batch, 784)`.

    Binary cross-entropy summed over the pixels, in the form that stays finite for any logit.
    """
    return functional.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(dim=1)


def kl(posterior: Posterior) -> Tensor:
    """KL divergence of each posterior to the standard normal prior, `(batch,)` nats.

    Closed form: Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B.
    """
    mean, log_variance = posterior
    return -0.5 * (1 + log_variance - mean.square() - torch.exp(log_variance)).sum(dim=1)
