"""Gray images (binarize.mode: none), whose likelihood is Gaussian."""

import numpy as np
import pytest
import torch

from conftest import model_of
from exact.random import Generator
from vae.cli import UserError
from vae.data import Split, load_split, preprocess, save_split, upscaled_digits
from vae.decomposition import units
from vae.importance import log_likelihoods
from vae.inference import anomaly_scores, reconstruct
from vae.objective import LOG_VARIANCE, reconstruction_loss
from vae.params import Model
from vae.scores import anomalies
from vae.training import inexact_steps, prepare


@pytest.fixture(scope="module")
def gray() -> np.ndarray:
    """200 digits, `(200, 784)` float32."""
    return preprocess(upscaled_digits()[0][:200], 128, np.float32)


def test_gray_pixels_are_255ths_and_read_back(tmp_path, gray):
    assert (gray.dtype, gray.min(), gray.max()) == (np.float32, 0, 1)
    assert np.array_equal(np.rint(255 * gray), upscaled_digits()[0][:200].reshape(200, 784))
    save_split(Split(gray), tmp_path / "test.safetensors")
    assert np.array_equal(load_split(tmp_path, "test").images, gray)
    for wrong in (gray * 255, gray - 1, gray * np.float32(np.nan)):
        save_split(Split(wrong), tmp_path / "test.safetensors")
        with pytest.raises(UserError, match="float32 from 0 to 1"):
            load_split(tmp_path, "test")


def test_the_reconstruction_loss_is_that_of_a_normal_distribution(gray):
    images = torch.from_numpy(gray)
    logits = torch.randn(3, *images.shape)
    found = reconstruction_loss(logits, images)
    normal = torch.distributions.Normal(logits.double().sigmoid(), np.exp(LOG_VARIANCE / 2))
    expected = -normal.log_prob(images.double()).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_training_step_of_gray_images_is_exact(params, gray):
    model = Model(hidden_sizes=(50,), latent_size=5)
    start = prepare(1, params.figures, params.train, model, Split(gray), Split(gray))
    assert inexact_steps(start, params.train) == []


def test_scores_likelihoods_and_units_are_those_of_the_gaussian(small, gray):
    model = model_of(small)
    kinds = anomalies(gray, 20, 128, np.random.RandomState(0))
    assert {images.dtype.name for images in kinds.values()} == {"float32"}
    scores = anomaly_scores(model, gray)
    decoded = torch.logit(torch.from_numpy(reconstruct(model, gray)).double())
    expected = reconstruction_loss(decoded.float(), torch.from_numpy(gray)).numpy()
    np.testing.assert_allclose(scores["reconstruction"], expected, rtol=1e-5)
    values, sizes = log_likelihoods(model, gray[:10], 50, Generator(0))
    assert np.isfinite(values).all() and (sizes >= 1).all()
    found = {row["loss"]: row["value"] for row in units(model, gray, np.uint8(np.rint(255 * gray)))}
    assert found["negative ELBO, nats per image"] == pytest.approx(scores["negative_elbo"].mean())
    assert len(found) == 5
