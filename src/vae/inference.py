"""Inference with a trained model: posteriors, reconstructions and scores.

The images go through a model in batches, without gradients; no result depends on the batches.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from exact import functional
from vae.model import VAE
from vae.objective import reconstruction_loss

# Rows that go through a model at once: their activations fit a processor's cache.
BATCH = 256


def encode(model: VAE, images: np.ndarray) -> Tensor:
    """Return the posteriors of images `(images, 784)`, uint8 of 0 and 1: the mean beside the
    log-variance, `(images, 2 latent)`."""
    return _in_batches(model, model.encode, torch.from_numpy(images))


def decode(model: VAE, z: Tensor) -> Tensor:
    """Return the logits `(n, 784)` of latent points `(n, latent)`, float32."""
    return _in_batches(model, model.decode, z)


@torch.no_grad()
def _in_batches(model: VAE, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([function(batch) for batch in rows.to(device).split(BATCH)]).cpu()


def means(posterior: Tensor) -> Tensor:
    """Return the means `(images, latent)` of what `encode` returns."""
    return posterior.chunk(2, dim=1)[0].contiguous()


def posterior_means(model: VAE, images: np.ndarray) -> np.ndarray:
    """Return the posterior means `(images, latent)` of images as above."""
    return means(encode(model, images)).numpy()


def kl_scores(model: VAE, images: np.ndarray) -> np.ndarray:
    """Return the KL divergence to the prior of each image's posterior, `(images,)` nats."""
    return functional.gaussian_kl(encode(model, images)).numpy()


def probabilities(model: VAE, z: Tensor) -> np.ndarray:
    """Return the probabilities `(n, 784)` of the pixels at latent points `(n, latent)`, float32."""
    return functional.sigmoid(decode(model, z)).numpy()


def reconstruct(model: VAE, images: np.ndarray) -> np.ndarray:
    """Return the probabilities `(images, 784)` of the pixels, decoded at the posterior mean."""
    return probabilities(model, means(encode(model, images)))


def anomaly_scores(model: VAE, images: np.ndarray, batch_size: int = 1000) -> dict[str, np.ndarray]:
    """Return scores `(images,)` in nats by name, the higher the stranger, of images as above.

    `kl` as above; `reconstruction`, -log p(x | z) at the posterior mean; `negative_elbo`, their
    sum. The logits of `batch_size` images are in memory at once.
    """
    posterior = encode(model, images)
    kl = functional.gaussian_kl(posterior).numpy()
    pairs = zip(
        means(posterior).split(batch_size), torch.from_numpy(images).split(batch_size), strict=True
    )
    parts = [reconstruction_loss(decode(model, mean), batch) for mean, batch in pairs]
    reconstruction = torch.cat(parts).numpy()
    return {"kl": kl, "reconstruction": reconstruction, "negative_elbo": reconstruction + kl}
