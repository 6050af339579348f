import numpy as np
import pytest

from conftest import model_of
from vae.inference import anomaly_scores, kl_scores, reconstruct
from vae.scores import anomalies, detection, fails_on, noise_images, noise_summary


def test_the_noise_image_is_the_notebooks_first_draw():
    np.random.seed(199)
    expected = np.random.randint(0, 2, (28, 28))
    assert (noise_images(np.random.RandomState(199), 1) == expected.ravel()).all()


def test_a_noise_score_is_placed_among_the_training_scores():
    training, fresh = np.arange(1000.0), np.array([998.0, 999.5, 1500.0, 5.0])
    scores = noise_summary(training, noise=1500.0, fresh=fresh, percentile=99.9)
    deviation = np.sqrt((1000**2 - 1) / 12)
    assert scores["training_kl_mean"] == pytest.approx(499.5)
    assert scores["training_kl_standard_deviation"] == pytest.approx(deviation)
    assert scores["noise_z_score"] == pytest.approx((1500 - 499.5) / deviation)
    assert scores["training_share_above_noise"] == 0
    assert noise_summary(training, 899.5, training, 99.9)["training_share_above_noise"] == 0.1
    assert 998 < scores["threshold"] < 999
    assert scores["noise_images_caught"] == 0.5


def test_scores_do_not_depend_on_the_batches(small, images):
    """Not in a bit: each image is scored as it would be alone."""
    model = model_of(small)
    expected = anomaly_scores(model, images)
    for size in (1, 7):
        for name, scores in anomaly_scores(model, images, size).items():
            assert (scores == expected[name]).all()


def test_the_area_is_the_share_of_correctly_ordered_pairs():
    ordinary, strange = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 5.0])
    found = detection({"kl": ordinary}, {"kl": strange})["kl"]
    assert found["roc_auc"] == (3 + 4) / 8
    # Precision at each anomaly, from the top: 1 of 1, then 2 of 3.
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_each_kind_of_anomaly_is_what_its_name_says(images):
    kinds = anomalies(images, 50, 128, np.random.RandomState(0))
    assert {kind: shown.shape for kind, shown in kinds.items()} == dict.fromkeys(kinds, (50, 784))
    assert all(set(np.unique(shown)) <= {0, 1} for shown in kinds.values())
    assert (kinds["inverted images"] + images[:50] == 1).all()
    assert kinds["blank images"].sum() == 0
    assert (kinds["shuffled pixels"].sum(axis=1) == images[:50].sum(axis=1)).all()
    assert (kinds["shuffled pixels"] != images[:50]).any(axis=1).all()
    assert kinds["scikit-learn digits"].sum(axis=1).std() > 0


def test_scores_are_the_elbos_terms_at_the_posterior_mean(small, images):
    model = model_of(small)
    scores = anomaly_scores(model, images, batch_size=30)
    p = reconstruct(model, images).astype(np.float64)
    likelihood = np.where(images == 1, p, 1 - p)
    np.testing.assert_allclose(scores["reconstruction"], -np.log(likelihood).sum(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(scores["kl"], kl_scores(model, images))
    np.testing.assert_array_equal(scores["negative_elbo"], scores["kl"] + scores["reconstruction"])


def test_a_score_fails_on_kinds_below_nine_tenths():
    kinds = {
        kind: {"kl": {"roc_auc": kl}, "reconstruction": {"roc_auc": 0.99}}
        for kind, kl in (("noise", 1.0), ("blank", 0.89), ("other", 0.9))
    }
    assert fails_on(kinds) == {"kl": ["blank"], "reconstruction": []}
