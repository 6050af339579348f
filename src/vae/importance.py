"""The likelihood of test images, by which VAEs are compared, from importance samples."""

import math

from vae import objective
from vae.model import BernoulliVAE

import torch
from torch import Tensor

# Decoded at once, as images times samples: few enough for a processor's cache.
ROWS = 2000


@torch.no_grad()
def log_likelihoods(
    model: BernoulliVAE, images: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """Estimate log p(x) of images `(images, 784)` uint8: `(images,)` nats, float64.

    The log of the mean over samples z of the posterior q(z | x) of p(x | z) p(z) / q(z | x):
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (2016), equation 8. It is
    below log p(x) on average, the less so the more samples there are.
    """
    estimates = []
    for batch in images.split(max(1, ROWS // samples)):
        pixels = batch.float()
        posterior = model.encode(pixels)
        noise = torch.randn(samples, *posterior.mean.shape, generator=generator)
        latent = posterior.sample(noise)
        # log p(z) - log q(z | x), in which the factors of 2 pi cancel.
        terms = noise.square() - latent.square() + posterior.log_variance
        weights = 0.5 * terms.sum(dim=2).double()
        logits = model.decode(latent.flatten(0, 1))
        repeated = pixels.repeat(samples, 1)
        weights -= objective.reconstruction(logits, repeated).view(samples, -1)
        estimates.append(torch.logsumexp(weights, dim=0) - math.log(samples))
    return torch.cat(estimates)
