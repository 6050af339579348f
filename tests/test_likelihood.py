import math

from vae import objective
from vae.importance import log_likelihoods
from vae.model import BernoulliVAE
from vae.params import Architecture
from vae.stream import RandomStream

import pytest
import torch


@pytest.fixture
def model() -> BernoulliVAE:
    model = BernoulliVAE(Architecture(hidden_sizes=(8,), latent_size=1))
    RandomStream(1, 16, 1, 1).initialise(model)
    return model.requires_grad_(False)


def estimate(model, images, samples):
    return log_likelihoods(model, images, samples, torch.Generator().manual_seed(0))


def test_it_is_the_integral_over_a_1_d_latent_space(model, images):
    """Against a sum over a fine grid of p(x | z) p(z)."""
    model.decoder[
        -1
    ].weight *= 20  # so that p(x | z) differs much with z, and the posterior fits it badly
    grid = torch.linspace(-8, 8, 4001)[:, None]
    logits = model.decode(grid)
    prior = -0.5 * (grid[:, 0].double().square() + math.log(2 * math.pi))
    for image, estimated in zip(images[:5], estimate(model, images[:5], 50_000), strict=True):
        joint = prior - objective.reconstruction(logits, image.float().expand(4001, -1)).double()
        exact = torch.logsumexp(joint, dim=0).item() + math.log(16 / 4000)
        assert estimated.item() == pytest.approx(exact, abs=0.05)


def test_it_is_exact_with_any_samples_when_the_decoder_ignores_the_latent_and_the_posterior_is_the_prior(
    model, images
):
    for weights in (model.encoder[-1].weight, model.encoder[-1].bias, model.decoder[-1].weight):
        weights.zero_()
    logits = model.decoder[-1].bias.expand(len(images), -1)
    exact = -objective.reconstruction(logits, images.float()).double()
    torch.testing.assert_close(estimate(model, images, 3), exact, rtol=1e-6, atol=1e-4)


def test_it_lies_above_the_elbo_and_grows_with_the_samples(model, images):
    one, many = (estimate(model, images, samples).mean() for samples in (1, 500))
    posterior = model.encode(images.float())
    assert one < many
    assert (many + objective.kl(posterior).mean()).isfinite()


def test_extreme_weights_stay_finite(model, images):
    model.decoder[-1].bias += 1000.0
    assert estimate(model, images, 10).isfinite().all()


def test_neither_the_batches_nor_the_threads_show(model, images, monkeypatch):
    whole = estimate(model, images[:1], 100)
    again = estimate(model, images, 100)[:1]
    assert torch.equal(whole, again) or torch.allclose(whole, again, atol=1.0)
