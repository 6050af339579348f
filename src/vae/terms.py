"""The terms of the objective, in nats per image, and other functions of the exact library.

Arrays are NumPy's, float32 and row by row unless it says otherwise.
"""

import numpy as np

from vae.kernel import library


def address(array: np.ndarray, dtype: type, *shape: int) -> int | None:
    """Where an array's values lie. Raises ValueError unless it has this type and shape, row by
    row."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"expected C-contiguous {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
        )
    return array.ctypes.data


def latent_samples(mean: np.ndarray, log_variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Reparameterised samples, shaped as `noise` `(..., n, latent)`, of posteriors `(n,
    latent)`."""
    n, latent = mean.shape
    z = np.empty_like(noise)
    rows = noise.size // latent
    library().sample(
        address(mean, np.float32, n, latent),
        address(log_variance, np.float32, n, latent),
        latent,
        address(noise, np.float32, *noise.shape[:-2], n, latent),
        rows,
        n,
        latent,
        z.ctypes.data,
    )
    return z


def reconstruction_terms(logits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """-log p(x | z), `(..., n)` float64 nats, from logits `(..., n, 784)` and images `(n, 784)`
    uint8."""
    n, pixels = images.shape
    terms = np.empty(logits.shape[:-1])
    at = address(logits, np.float32, *logits.shape[:-2], n, pixels)
    library().reconstruction(
        at, address(images, np.uint8, n, pixels), terms.size, n, pixels, terms.ctypes.data
    )
    return terms


def kl_terms(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL divergence of each posterior `(n, latent)` to the standard normal prior, `(n,)` float64
    nats.

    Closed form: Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B.
    """
    n, latent = mean.shape
    terms = np.empty(n)
    at = address(mean, np.float32, n, latent), address(log_variance, np.float32, n, latent)
    library().kl(*at, latent, n, latent, terms.ctypes.data)
    return terms


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, in their shape, float32."""
    shares = np.empty_like(logits)
    library().sigmoid(address(logits, np.float32, *logits.shape), shares.ctypes.data, logits.size)
    return shares


def prior_ratio(noise: np.ndarray, latent: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """log p(z) - log q(z | x), `(..., n)` float64, of samples `(..., n, latent)` made from
    `noise`."""
    parts = np.square(noise, dtype=np.float64) - np.square(latent, dtype=np.float64) + log_variance
    return 0.5 * np.add.accumulate(parts, axis=-1)[..., -1]  # accumulate adds in a fixed order


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the first axis of `values` `(samples, n)`, float64."""
    most = values.max(axis=0)
    shares = values - most
    library().exponentials(address(shares, np.float64, *values.shape), shares.size)
    means = np.add.accumulate(shares, axis=0)[-1] / len(values)
    library().logarithms(address(means, np.float64, len(most)), means.size)
    return most + means
