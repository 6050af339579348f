"""Kinds of anomalies made from data at hand, and how well a score tells them from ordinary images."""

from collections.abc import Mapping

from vae.data import binarize
from vae.digits import upscaled_digits
from vae.scores import noise_images

import numpy as np

# A detector that is wrong once in ten pairs of an ordinary image and an anomaly, or more often, fails.
FAILS_BELOW = 0.9


def anomalies(
    ordinary: np.ndarray, count: int, threshold: int, generator: np.random.RandomState
) -> dict[str, np.ndarray]:
    """`count` images `(count, 784)` of each kind, 0 or 1 as uint8, fewer where there are not as many.

    `ordinary` images are inverted, or each one's pixels shuffled; scikit-learn's digits, binarized at
    `threshold`, are real digits from another source.
    """
    first = ordinary[:count]
    return {
        "coin flips": noise_images(generator, count),
        "inverted digits": 1 - first,
        "blank images": np.zeros_like(first),
        "shuffled pixels": np.stack([generator.permutation(image) for image in first]),
        "scikit-learn digits": binarize(upscaled_digits()[0][:count], threshold),
    }


def detection(
    ordinary: Mapping[str, np.ndarray], anomalous: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """For each score by name, `(images,)` of ordinary and of anomalous images: the area under the ROC curve,
    0.5 by chance, and the average precision, by chance the anomalies' share."""
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
    """For each score, the kinds of anomalies that it does not tell from ordinary images."""
    names = next(iter(kinds.values()))
    return {
        name: [kind for kind, scores in kinds.items() if scores[name]["roc_auc"] < FAILS_BELOW]
        for name in names
    }
