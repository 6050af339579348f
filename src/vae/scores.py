"""Anomaly detection: thresholds, anomalous images of several kinds, and how well scores do."""

from collections.abc import Mapping

import numpy as np

from vae.data import PIXELS, preprocess, upscaled_digits

SCORE_NAMES = {"kl": "KL", "reconstruction": "reconstruction", "negative_elbo": "negative ELBO"}
# Keys of metrics/anomaly.json that the report and MLflow read.
ANOMALY_KEYS = ("kinds", "fails_on", "fails_below")
ANOMALY_KEYS += ("noise_kl", "noise_images_caught", "training_share_above_noise")
# A score fails on a kind of anomaly if the area under its ROC curve is smaller.
FAILS_BELOW = 0.9


def limits(training: Mapping[str, np.ndarray], percentile: float) -> dict[str, float]:
    """Return the threshold of each score, in nats: a percentile of the training images' scores.

    An image is anomalous above that of `kl` or `negative_elbo`, or below that of `reconstruction`:
    a blank image is too easy.
    """
    sides = {"kl": percentile, "negative_elbo": percentile, "reconstruction": 100 - percentile}
    return {name: float(np.percentile(training[name], side)) for name, side in sides.items()}


def noise_images(generator: np.random.RandomState, count: int) -> np.ndarray:
    """Draw images of fair coin flips as the post does, `(count, 784)`, uint8."""
    return generator.randint(0, 2, (count, PIXELS)).astype(np.uint8)


def noise_summary(
    training: np.ndarray, noise: float, fresh: np.ndarray, percentile: float
) -> dict[str, float]:
    """Compare the KL, in nats, of one noise image and of more, `(images,)`, with the training KL.

    The z-score is the distance to the training images' mean in their standard deviations.
    """
    mean, deviation = training.mean(), training.std()
    threshold = np.percentile(training, percentile)
    return {
        "noise_kl": noise,
        "noise_z_score": float((noise - mean) / deviation),
        "training_kl_mean": float(mean),
        "training_kl_standard_deviation": float(deviation),
        "training_share_above_noise": float((training > noise).mean()),
        "threshold": float(threshold),
        "threshold_percentile": percentile,
        "noise_images": len(fresh),
        "noise_images_caught": float((fresh > threshold).mean()),
    }


def anomalies(
    ordinary: np.ndarray, count: int, threshold: int, generator: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Make at most `count` images `(count, 784)` of each kind, of the type of `ordinary` images.

    Some are made of these. scikit-learn's digits, for uint8 binarized at `threshold`, are real
    digits from another source.
    """
    first = ordinary[:count]
    return {
        "coin flips": noise_images(generator, count).astype(first.dtype),
        "inverted images": 1 - first,
        "blank images": np.zeros_like(first),
        "shuffled pixels": np.stack([generator.permutation(image) for image in first]),
        "scikit-learn digits": preprocess(upscaled_digits()[0][:count], threshold, first.dtype),
    }


def detection(
    ordinary: Mapping[str, np.ndarray], anomalous: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Measure how well each score, `(images,)` by name, separates ordinary from anomalous images.

    By chance, the area under the ROC curve is 0.5 and the average precision the anomalies' share.
    """
    # Takes a second to import, and scoring does not need it.
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = {}
    for name in ordinary:
        scores = np.concatenate((ordinary[name], anomalous[name]))
        labels = np.repeat((0, 1), (len(ordinary[name]), len(anomalous[name])))
        found[name] = {
            "roc_auc": float(roc_auc_score(labels, scores)),
            "average_precision": float(average_precision_score(labels, scores)),
        }
    return found


def fails_on(kinds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, list[str]]:
    """List for each score the kinds of anomalies that it does not separate from ordinary images."""
    return {
        name: [kind for kind, scores in kinds.items() if scores[name]["roc_auc"] < FAILS_BELOW]
        for name in next(iter(kinds.values()))
    }
