"""The number by which VAEs are compared: the likelihood of test images, estimated by importance sampling."""

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
    """Estimates of log p(x) of each image, `(images,)` nats as float64, from images `(images, 784)` uint8.

    log of the mean over the samples z of p(x | z) p(z) / q(z | x), z drawn from the posterior q(z | x):
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (2016), equation 8. It is below
    log p(x) on average, the less so the more samples there are.
    """
    estimates = []
    for batch in images.split(max(1, ROWS // samples)):
        pixels = batch.float()
        posterior = model.encode(pixels)
        noise = torch.randn(samples, *posterior.mean.shape, generator=generator)
        latent = posterior.sample(noise)
        # log p(z) - log q(z | x), in which the factors of 2 pi cancel.
        weights = (
            0.5 * (noise.square() - latent.square() + posterior.log_variance).sum(dim=2).double()
        )
        logits = model.decode(latent.flatten(0, 1))
        repeated = pixels.repeat(samples, 1)
        weights -= objective.reconstruction(logits, repeated).view(samples, -1)
        estimates.append(torch.logsumexp(weights, dim=0) - math.log(samples))
    return torch.cat(estimates)
