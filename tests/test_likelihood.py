import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import exact
from conftest import model_of
from exact.random import Generator
from vae.importance import log_likelihoods, mean_and_error
from vae.model import VAE
from vae.params import Architecture


@pytest.fixture
def model() -> VAE:
    return model_of(Architecture(hidden_sizes=(8,), latent_size=1)).requires_grad_(False)


def test_the_estimate_is_the_integral_over_a_1_d_space(model, images):
    """Against a sum of p(x | z) p(z) over a fine grid."""
    # p(x | z) then depends much on z, and the posterior fits it badly.
    model.decoder[-1].weight *= 20
    grid = torch.linspace(-8, 8, 4001)[:, None]
    logits = model.decode(grid)
    prior = -0.5 * (np.float64(grid[:, 0]) ** 2 + math.log(2 * math.pi))
    estimates, _ = log_likelihoods(model, images[:5], 50_000, Generator(0))
    for image, estimated in zip(images[:5], estimates, strict=True):
        repeated = torch.from_numpy(image).expand(logits.shape)
        nll = exact.functional.bernoulli_nll(logits, repeated).numpy()
        integral = logsumexp(prior - nll) + math.log(16 / 4000)
        assert estimated == pytest.approx(integral, abs=0.05)


def test_the_effective_size_depends_on_how_equal_weights_are(model, images):
    """All samples count with equal weights, and one with very unequal weights."""
    # Every posterior is the prior, and all decoded images are equal.
    for values in (*model.encoder[-1].parameters(), model.decoder[-1].weight):
        values.zero_()
    _, sizes = log_likelihoods(model, images, 7, Generator(0))
    np.testing.assert_allclose(sizes, 7, rtol=1e-4)
    model.decoder[-1].weight.copy_(300 - 600 * (torch.arange(784) % 2)[:, None])
    _, sizes = log_likelihoods(model, images, 7, Generator(0))
    assert np.median(sizes) == pytest.approx(1, abs=0.01)
    assert sizes.min() > 0.999


def test_the_mean_and_its_error_are_those_of_statistics():
    values = np.random.default_rng(0).normal(-80, 5, 1000)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 1000**0.5)


def test_extreme_weights_stay_finite(model, images):
    model.decoder[-1].bias += 1000.0
    assert np.isfinite(log_likelihoods(model, images, 10, Generator(0))[0]).all()
