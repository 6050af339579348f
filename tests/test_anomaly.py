import numpy as np
import pytest
import torch

from anomaly import judge, noise_images
from vae import objective
from vae.model import BernoulliVAE
from vae.scores import kl_scores, posterior_means


def test_the_noise_image_is_the_first_draw_of_the_notebooks_seeded_numpy():
    np.random.seed(199)
    expected = np.random.randint(0, 2, (28, 28))
    image = noise_images(np.random.RandomState(199), 1)
    assert (image.reshape(28, 28) == expected).all()


def test_the_verdict_on_a_score_follows_from_the_training_scores():
    training = np.arange(1000.0)
    scores = judge(training, noise=1500.0, fresh=np.array([998.0, 999.5, 1500.0, 5.0]), percentile=99.9)
    mean, deviation = 499.5, np.sqrt((1000**2 - 1) / 12)
    assert scores["training_kl_mean"] == pytest.approx(mean)
    assert scores["training_kl_standard_deviation"] == pytest.approx(deviation)
    assert scores["noise_z_score"] == pytest.approx((1500 - mean) / deviation)
    assert scores["training_share_above_noise"] == 0
    assert judge(training, 899.5, training, 99.9)["training_share_above_noise"] == pytest.approx(0.1)
    assert 998 < scores["threshold"] < 999
    assert scores["noise_images_caught"] == 0.5


def test_scores_do_not_depend_on_the_batches(small, images):
    model = BernoulliVAE(small)
    with torch.no_grad():
        posterior = model.encode(images.float())
    for size in (1, 7, 100, 1000):
        np.testing.assert_allclose(
            kl_scores(model, images, size), objective.kl(posterior).numpy(), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            posterior_means(model, images, size), posterior.mean.numpy(), rtol=1e-4, atol=1e-5
        )
