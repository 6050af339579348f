import copy

from vae import objective
from vae.gradient import backward
from vae.model import BernoulliVAE, Posterior
from vae.stream import RandomStream
from vae.training import loss_terms

import pytest
import torch
from torch.distributions import Normal, kl_divergence

EXTREMES = (-1e30, -1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4, 1e30)


def test_kl_is_that_of_torchs_distributions():
    mean, log_variance = torch.randn(2, 50, 20, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0)).sum(
        dim=1
    )
    torch.testing.assert_close(objective.kl(Posterior(mean, log_variance)), expected)


def test_kl_of_the_prior_itself_is_zero():
    assert objective.kl(Posterior(torch.zeros(3, 20), torch.zeros(3, 20))).tolist() == [
        0.0,
        0.0,
        0.0,
    ]


def test_reconstruction_is_minus_the_log_probability_of_the_pixels():
    logits = torch.randn(50, 784, dtype=torch.float64, generator=torch.manual_seed(0))
    images = (torch.rand(50, 784, generator=torch.manual_seed(1)) < 0.5).double()
    p = torch.sigmoid(logits)
    expected = -torch.log(torch.where(images == 1, p, 1 - p)).sum(dim=1)
    torch.testing.assert_close(objective.reconstruction(logits, images), expected)


@pytest.mark.parametrize("logit", EXTREMES)
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_extreme_logits_give_the_float64_value_and_finite_gradients(logit, pixel):
    logits = torch.full((1, 784), logit, requires_grad=True)
    loss = objective.reconstruction(logits, torch.full((1, 784), pixel))
    exact = torch.nn.functional.softplus(torch.tensor((1 - 2 * pixel) * logit, dtype=torch.float64))
    torch.testing.assert_close(loss.double().item(), 784 * exact.item(), rtol=1e-5, atol=1e-4)
    loss.sum().backward()
    assert logits.grad.isfinite().all()


# exp(88) is the largest that float32 holds: 1e38.
@pytest.mark.parametrize("log_variance", [-1e4, -100.0, -20.0, 0.0, 20.0, 88.0])
@pytest.mark.parametrize("mean", [0.0, -1e4, 1e15])
def test_extreme_posteriors_give_the_float64_value_and_finite_gradients(mean, log_variance):
    posterior = Posterior(
        *(torch.full((1, 2), value, requires_grad=True) for value in (mean, log_variance))
    )
    exact = Posterior(*(part.detach().double() for part in posterior))
    loss = objective.kl(posterior)
    torch.testing.assert_close(loss.double(), objective.kl(exact), rtol=1e-5, atol=1e-4)
    loss.sum().backward()
    assert all(part.grad.isfinite().all() for part in posterior)


@pytest.mark.parametrize("log_variance", [89.0, 1e4])
def test_a_larger_log_variance_gives_an_infinite_kl_which_stops_training(log_variance):
    kl = objective.kl(Posterior(torch.zeros(1, 2), torch.full((1, 2), log_variance)))
    assert kl.tolist() == [torch.inf]


@pytest.mark.parametrize("log_variance", [-1e4, -100.0, 0.0, 20.0, 40.0])
@pytest.mark.parametrize("logit", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_the_written_out_gradient_at_extremes_is_that_of_autograd_in_float64(
    logit, log_variance, images, small
):
    model = BernoulliVAE(small)
    RandomStream(1, 16, 1, 1).initialise(model)
    model.requires_grad_(False)
    model.encoder[-1].bias[small.latent_size :] = log_variance
    model.decoder[-1].bias.fill_(logit)
    model.requires_grad_(True)
    exact = copy.deepcopy(model).double()
    batch, noise = (
        images[:16].float(),
        torch.randn(16, small.latent_size, generator=torch.manual_seed(0)),
    )
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    terms = backward(model, batch, noise)
    expected_terms = loss_terms(exact, batch.double(), noise.double())
    expected = torch.autograd.grad(expected_terms.sum(), list(exact.parameters()))
    torch.testing.assert_close(terms.double(), expected_terms.detach(), rtol=1e-4, atol=1e-2)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad.isfinite().all()
        scale = gradient.abs().max().item()
        torch.testing.assert_close(
            parameter.grad.double(), gradient, rtol=1e-3, atol=1e-3 * scale + 1e-6
        )
