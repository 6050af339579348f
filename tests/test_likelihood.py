import math

import numpy as np
import pytest

from conftest import network_of
from vae.draws import Generator
from vae.importance import log_likelihoods, mean_and_error
from vae.kernel import default_threads, set_threads
from vae.network import Network
from vae.params import Architecture
from vae.terms import reconstruction_terms


@pytest.fixture
def network() -> Network:
    return network_of(Architecture(hidden_sizes=(8,), latent_size=1))


def estimate(network, images, samples):
    return log_likelihoods(network, images, samples, Generator(0))[0]


def log_sum_exp(values):
    return values.max() + math.log(np.exp(values - values.max()).sum())


def test_it_is_the_integral_over_a_1_d_latent_space(network, images):
    """Against a sum over a fine grid of p(x | z) p(z)."""
    # So that p(x | z) differs much with z, and the posterior fits it badly.
    network.layers[-1][0][...] *= 20
    grid = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    logits = network.decode(grid)
    prior = -0.5 * (np.float64(grid[:, 0]) ** 2 + math.log(2 * math.pi))
    for image, estimated in zip(images[:5], estimate(network, images[:5], 50_000), strict=True):
        repeated = np.ascontiguousarray(np.broadcast_to(image, logits.shape))
        exact = log_sum_exp(prior - reconstruction_terms(logits, repeated)) + math.log(16 / 4000)
        assert estimated == pytest.approx(exact, abs=0.05)


def test_it_is_exact_when_the_decoder_ignores_the_latent_and_the_posterior_is_the_prior(
    network, images
):
    """With any number of samples."""
    for values in (*network.layers[1], network.layers[-1][0]):
        values[...] = 0
    logits = np.tile(network.layers[-1][1], (len(images), 1))
    exact = -reconstruction_terms(logits, images)
    np.testing.assert_allclose(estimate(network, images, 3), exact, rtol=1e-6, atol=1e-4)


def test_it_lies_above_the_elbo_and_grows_with_the_samples(network, images):
    one, many = (estimate(network, images, samples).mean() for samples in (1, 500))
    assert one < many < 0


def test_the_effective_size_is_all_samples_with_equal_weights_and_one_with_very_unequal_ones(
    network, images
):
    for values in (*network.layers[1], network.layers[-1][0]):
        values[...] = 0
    _, sizes = log_likelihoods(network, images, 7, Generator(0))
    np.testing.assert_allclose(sizes, 7, rtol=1e-4)
    network.layers[-1][0][...] = np.where(np.arange(784) % 2, 300.0, -300.0)[:, None]
    _, sizes = log_likelihoods(network, images, 7, Generator(0))
    assert np.median(sizes) == pytest.approx(1, abs=0.01)
    assert sizes.min() > 0.999


def test_the_mean_and_its_error_are_those_of_statistics():
    values = np.random.default_rng(0).normal(-80, 5, 1000)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 1000**0.5)


def test_extreme_weights_stay_finite(network, images):
    network.layers[-1][1][...] += 1000.0
    assert np.isfinite(estimate(network, images, 10)).all()


def test_the_threads_do_not_show(network, images):
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        found.append(estimate(network, images, 100).tobytes())
    set_threads(default_threads())
    assert len(set(found)) == 1
