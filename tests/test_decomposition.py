"""The parts of the KL, and the loss in other units."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from conftest import model_of
from exact.random import Generator
from vae.decomposition import decomposition, units
from vae.inference import anomaly_scores, kl_scores, posterior_means, reconstruct
from vae.model import VAE
from vae.params import Architecture


@pytest.fixture
def model() -> VAE:
    return model_of(Architecture(hidden_sizes=(8,), latent_size=1)).requires_grad_(False)


def posteriors(model: VAE, mean: float | None, log_variance: float) -> None:
    """Give every image this posterior, but with its own mean if none is given."""
    layer = model.encoder[-1]
    (mean_rows, variance_rows), biases = layer.weight.chunk(2), layer.bias.chunk(2)
    variance_rows[...], biases[1][...] = 0, log_variance
    if mean is not None:
        mean_rows[...], biases[0][...] = 0, mean


def test_the_parts_of_the_kl_add_up_to_it(small, images):
    model = model_of(small)
    parts = decomposition(model, images, Generator(0))
    kl = kl_scores(model, images).mean()
    assert parts["kl"] == pytest.approx(kl, abs=1e-5)
    assert sum(parts["kl_by_dimension"]) == pytest.approx(kl, abs=1e-5)
    assert parts["mutual_information"] + parts["aggregated_kl"] == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize(
    ("mean", "log_variance", "information", "units"),
    # All equal; and far apart, so that a sample tells which image it is of.
    [(2.0, 0.0, 0.0, 0), (None, -30.0, math.log(100), 1)],
)
def test_the_information_is_between_none_and_all(
    model, images, mean, log_variance, information, units
):
    model.encoder[-1].weight[0] *= 10
    posteriors(model, mean, log_variance)
    parts = decomposition(model, images, Generator(0))
    assert parts["mutual_information"] == pytest.approx(information, abs=1e-3)
    assert parts["mutual_information"] <= parts["most_information"]
    assert parts["active_units"] == units


def test_the_information_is_the_integral_over_a_1_d_space(model, images):
    """Of log q(z | x) - log q(z), against a sum over a fine grid."""
    model.encoder[-1].weight[0] *= 10
    posteriors(model, mean=None, log_variance=-2.0)
    means = posterior_means(model, images)[:, 0].astype(float)
    grid = np.linspace(means.min() - 3, means.max() + 3, 20001)
    densities = np.exp(-0.5 * (grid - means[:, None]) ** 2 / math.exp(-2))
    mixed = densities.mean(0) / math.sqrt(2 * math.pi * math.exp(-2))
    entropy = -(mixed * np.log(mixed + 1e-300)).sum() * (grid[1] - grid[0])
    exact = entropy - 0.5 * math.log(2 * math.pi * math.e * math.exp(-2))
    assert exact > 0.3
    # From one sample of each of 100 images.
    found = decomposition(model, images, Generator(0))["mutual_information"]
    assert found == pytest.approx(exact, abs=0.2)


def test_the_loss_in_other_units_is_what_others_print(small, images):
    model = model_of(small)
    gray = np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8)
    found = units(model, images, gray)
    ours = anomaly_scores(model, images)["negative_elbo"].mean()
    kl = kl_scores(model, images).mean()
    shares, light = reconstruct(model, images), gray / 255
    logits = model.decode(torch.from_numpy(posterior_means(model, images))).detach()
    target = torch.from_numpy(light).float()
    to_gray = cross_entropy(logits, target, reduction="none").sum(dim=1).mean().item()
    expected = [ours, 128 * ours, ours / 784, ours / 784 / math.log(2), (ours - kl) / 784 + kl]
    expected.append(to_gray + kl)
    expected += [((shares - x) ** 2).sum(axis=1).mean() + kl for x in (images, light)]
    assert [row["value"] for row in found] == pytest.approx(expected, rel=1e-5)
