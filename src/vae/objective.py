"""What training minimises: negative_elbo = reconstruction + kl, in nats per image."""

import torch
from torch import Tensor

import exact

# Of a pixel of gray images, around the decoder's mean: a standard deviation of 0.22.
LOG_VARIANCE = -3.0


def loss_function(
    logits: Tensor, images: Tensor, kl: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return a batch's summed loss, and the reconstruction loss of each image.

    `logits` and `images` are `(batch, 784)`, `kl` `(batch,)` nats. The loss is the sum over the
    batch of reconstruction + `beta` kl: Kingma and Welling, Auto-Encoding Variational Bayes (2014),
    equation 10; beta as of Higgins and others, beta-VAE (2017).
    """
    reconstruction = reconstruction_loss(logits, images)
    return exact.functional.weighted_sum((reconstruction, kl), (1.0, beta)), reconstruction


def reconstruction_loss(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(x | z) of each image, summed over the pixels, `(..., batch)` nats, float64.

    Images of 0 and 1, uint8, are Bernoulli: this is the binary cross-entropy. Gray images, float32
    from 0.0 to 1.0, are Gaussian: their mean is the sigmoid of the `logits` `(..., batch, 784)`, as
    in Kingma and Welling's appendix C.2, and their variance is fixed by `LOG_VARIANCE`.
    """
    if images.dtype == torch.uint8:
        return exact.functional.bernoulli_nll(logits, images)
    return exact.functional.gaussian_nll(exact.functional.sigmoid(logits), images, LOG_VARIANCE)
