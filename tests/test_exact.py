"""The exact arithmetic against float64 autograd; its bits under other threads, batches, modes."""

import math

import numpy as np
import pytest
import torch

from conftest import ROOT, network_of
from vae.cuda import CudaTrainer
from vae.kernel import default_threads, set_threads
from vae.model import as_module
from vae.network import Network, Trainer
from vae.params import Architecture, check_params
from vae.terms import kl_terms, latent_samples, reconstruction_terms

SETTINGS = check_params(ROOT / "params.yaml").train
POSTS = [
    Architecture(hidden_sizes=(400,), latent_size=20),
    Architecture(hidden_sizes=(400, 150), latent_size=2),
]
ODD = [
    Architecture(hidden_sizes=(), latent_size=1),
    Architecture(hidden_sizes=(1, 3, 17), latent_size=3),
    Architecture(hidden_sizes=(17,), latent_size=5, decoder_hidden_sizes=()),
    Architecture(hidden_sizes=(1500,), latent_size=2, decoder_hidden_sizes=(3,)),
    Architecture(hidden_sizes=(9,) * 12, latent_size=2),
    Architecture(hidden_sizes=(1024,), latent_size=2),  # rows 4,096 bytes apart are packed
]


def work(batch: int, latent: int, images: int = 200):
    """Images, rows of a batch of them, and noise."""
    generator = np.random.default_rng(batch)
    pixels = (generator.random((images, 784)) < 0.2).astype(np.uint8)
    noise = generator.standard_normal((batch, latent)).astype(np.float32)
    return pixels, generator.permutation(np.arange(batch) % images), noise


def exact_gradient(
    network: Network, pixels, rows, noise, beta
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Terms and gradients by float64 autograd."""
    model = as_module(network).double()
    batch = torch.from_numpy(pixels[rows]).double()
    terms = model.terms(batch, torch.from_numpy(noise).double())
    gradients = torch.autograd.grad((terms[0] + beta * terms[1]).sum(), list(model.parameters()))
    return terms.detach().numpy(), [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize(("batch", "beta"), [(1, 1), (7, 4), (127, 0.3), (128, 1), (129, 0)])
@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_losses_and_gradients_are_those_of_float64_autograd(architecture, batch, beta):
    network = network_of(architecture)
    pixels, rows, noise = work(batch, network.latent)
    trainer = Trainer(network, batch, SETTINGS.model_copy(update={"beta": beta}))
    terms = trainer.gradient(pixels, rows, noise)
    expected_terms, expected = exact_gradient(network, pixels, rows, noise, beta)
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-5, atol=1e-4)
    ours = network.views(trainer.gradients).values()
    for gradient, exact in zip(ours, expected, strict=True):
        # Sums of at most 784 or 129 products, each rounded to 6e-8 of the largest sum, pass through
        # a few layers; a ReLU within rounding of 0 may open the other way, which shows in one row.
        error = np.abs(gradient - exact)
        scale = max(np.abs(exact).max(), 1e-2)
        assert np.quantile(error, 0.999) <= 2e-5 * scale
        assert error.max() <= 1e-2 * scale


def test_adam_makes_the_steps_of_torch_1_1():
    """m / (sqrt(v) + eps) scaled by sqrt(1 - b2^t) / (1 - b1^t), in float64."""
    network = network_of(Architecture(hidden_sizes=(3,), latent_size=1))
    pixels, rows, noise = work(8, 1)
    trainer = Trainer(network, 8, SETTINGS)
    values, m, v = network.values.astype(np.float64), 0.0, 0.0
    for step in range(1, 6):
        trainer.step(pixels, rows, noise)
        gradient = trainer.gradients.astype(np.float64)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        scale = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        values -= 0.001 * scale * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(network.values, values, rtol=1e-6, atol=1e-7)


def trained(architecture: Architecture, threads: int, batch: int = 129) -> bytes:
    """The bits of values and moments after three steps."""
    set_threads(threads)
    network = network_of(architecture)
    pixels, rows, noise = work(batch, network.latent)
    trainer = Trainer(network, batch, SETTINGS)
    for _ in range(3):
        trainer.step(pixels, rows, noise)
    set_threads(default_threads())
    return b"".join(each.tobytes() for each in (network.values, trainer.first, trainer.second))


@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(architecture):
    assert len({trained(architecture, threads) for threads in (1, 2, 3, 16)}) == 1


def test_bits_do_not_depend_on_the_callers_mode_for_subnormal_numbers():
    expected = trained(POSTS[1], 2)
    torch.set_flush_denormal(True)
    try:
        assert trained(POSTS[1], 2) == expected
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_what_becomes_of_an_image_does_not_depend_on_the_images_beside_it(architecture):
    network = network_of(architecture)
    pixels, _, _ = work(128, network.latent, images=300)
    whole, some = network.encode(pixels), network.encode(pixels[5:8])
    assert all((one[5:8] == other).all() for one, other in zip(whole, some, strict=True))
    assert (network.decode(whole[0])[5:8] == network.decode(some[0])).all()


@pytest.mark.parametrize("logit", [-1e30, -1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("pixel", [0, 1])
def test_extreme_logits_give_the_float64_value(logit, pixel):
    logits, images = np.full((1, 784), logit, np.float32), np.full((1, 784), pixel, np.uint8)
    exact = np.logaddexp(0, (1 - 2 * pixel) * np.float64(np.float32(logit)))
    np.testing.assert_allclose(reconstruction_terms(logits, images), 784 * exact, 1e-5, 1e-4)


@pytest.mark.parametrize("log_variance", [-1e4, -100.0, -20.0, 0.0, 20.0, 88.0])
@pytest.mark.parametrize("mean", [0.0, -1e4, 1e15])
def test_extreme_posteriors_give_the_float64_kl(mean, log_variance):
    means, log_variances = (np.full((1, 2), x, np.float32) for x in (mean, log_variance))
    m, v = np.float64(means), np.float64(log_variances)
    exact = 0.5 * (np.exp(v) + m**2 - 1 - v).sum(axis=1)
    np.testing.assert_allclose(kl_terms(means, log_variances), exact, rtol=1e-5, atol=1e-4)


def test_samples_are_mean_plus_deviation_times_noise():
    generator = np.random.default_rng(0)
    mean, log_variance, noise = (generator.standard_normal((3, 50, 20))).astype(np.float32)
    exact = np.float64(mean) + np.exp(0.5 * np.float64(log_variance)) * noise
    np.testing.assert_allclose(
        latent_samples(mean, log_variance, noise), exact, rtol=1e-5, atol=1e-6
    )


def test_steps_by_torch_on_a_device_are_the_same_up_to_rounding():
    """On torch's processor device: where this runs there may be no CUDA."""
    architecture = Architecture(hidden_sizes=(17,), latent_size=3)
    networks = [network_of(architecture) for _ in range(2)]
    pixels, rows, noise = work(32, 3)
    half = SETTINGS.model_copy(update={"beta": 0.5})
    trainers = (Trainer(networks[0], 32, half), CudaTrainer(networks[1], half, device="cpu"))
    for _ in range(3):
        terms = [trainer.step(pixels, rows, noise) for trainer in trainers]
        np.testing.assert_allclose(*terms, rtol=1e-4)
    trainers[1].write_back()
    np.testing.assert_allclose(networks[0].values, networks[1].values, atol=2e-4)
    again = CudaTrainer(network_of(architecture, 2), SETTINGS, device="cpu")
    again.restore(trainers[1].state())
    assert (again.network.values == networks[1].values).all()
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("layer", [0, -1])
def test_weights_that_are_not_numbers_show_in_the_terms(layer):
    network = network_of(POSTS[1])
    network.layers[layer][0][3] = np.nan
    assert np.isnan(Trainer(network, 7, SETTINGS).gradient(*work(7, 2))[0]).any()


def test_arrays_of_another_type_or_shape_are_refused():
    trainer = Trainer(network_of(POSTS[1]), 4, SETTINGS)
    pixels, rows, noise = work(4, 2)
    for wrong in (
        (pixels.astype(np.float32), rows, noise),
        (pixels, rows, noise.T),
        (pixels, rows[:3], noise),
    ):
        with pytest.raises(ValueError, match="expected C-contiguous"):
            trainer.gradient(*wrong)
    with pytest.raises(ValueError, match="at most 4"):
        trainer.gradient(*work(5, 2))
