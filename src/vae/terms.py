"""The terms of the objective, in nats per image, and other functions of the exact library.

Arrays are NumPy's, float32 and row by row unless it says otherwise.
"""

import numpy as np

from vae.kernel import call, expect


def latent_samples(mean: np.ndarray, log_variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Mean + deviation * normal `noise` `(..., n, latent)`, of posteriors `(n, latent)`."""
    n, latent = mean.shape
    expect(np.float32, (n, latent), mean, log_variance)
    expect(np.float32, (*noise.shape[:-2], n, latent), noise)
    samples = np.empty_like(noise)
    rows = noise.size // latent
    call("sample", mean, log_variance, latent, noise, rows, n, latent, samples)
    return samples


def reconstruction_terms(logits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """-log p(x | z), `(..., n)` nats, float64: logits `(..., n, 784)`, uint8 images `(n, 784)`."""
    n, pixels = images.shape
    expect(np.uint8, (n, pixels), images)
    expect(np.float32, (*logits.shape[:-2], n, pixels), logits)
    terms = np.empty(logits.shape[:-1])
    call("reconstruction", logits, images, terms.size, n, pixels, terms)
    return terms


def kl_terms(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL divergence of posteriors `(n, latent)` to the standard normal prior, `(n,)` float64 nats.

    Closed form: Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B.
    """
    n, latent = mean.shape
    expect(np.float32, (n, latent), mean, log_variance)
    terms = np.empty(n)
    call("kl", mean, log_variance, latent, n, latent, terms)
    return terms


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, in their shape, float32."""
    expect(np.float32, logits.shape, logits)
    shares = np.empty_like(logits)
    call("sigmoid", logits, shares, logits.size)
    return shares


def prior_ratio(noise: np.ndarray, latent: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """log p(z) - log q(z | x), `(..., n)` float64, of `latent_samples` `(..., n, latent)`."""
    parts = np.square(noise, dtype=np.float64) - np.square(latent, dtype=np.float64) + log_variance
    return 0.5 * np.add.accumulate(parts, axis=-1)[..., -1]  # accumulate adds in a fixed order


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the first axis of `values` `(samples, n)`, float64."""
    expect(np.float64, values.shape, values)
    most = values.max(axis=0)
    shares = values - most
    call("exponentials", shares, shares.size)
    means = np.add.accumulate(shares, axis=0)[-1] / len(values)
    call("logarithms", means, means.size)
    return most + means
