import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae import objective
from vae.model import Posterior

EXTREMES = (-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4)


def test_kl_is_that_of_torchs_distributions():
    mean, log_variance = torch.randn(2, 50, 20, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(objective.kl(Posterior(mean, log_variance)), expected)


def test_kl_of_the_prior_itself_is_zero():
    assert objective.kl(Posterior(torch.zeros(3, 20), torch.zeros(3, 20))).tolist() == [0.0, 0.0, 0.0]


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
