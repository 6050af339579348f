"""What a trained model says of images, in batches."""

from collections.abc import Iterator, Mapping

from vae import objective
from vae.data import PIXELS, binarize, upscaled_digits
from vae.model import BernoulliVAE, Posterior

import numpy as np
import torch
from torch import Tensor

SCORE_NAMES = {"kl": "KL", "reconstruction": "reconstruction", "negative_elbo": "negative ELBO"}
# A detector that is wrong once in ten pairs of an ordinary image and an anomaly, or more often, fails.
FAILS_BELOW = 0.9


def noise_images(generator: np.random.RandomState, count: int) -> np.ndarray:
    """Images of fair coin flips, `(count, 784)`, uint8, drawn as the post drew its one."""
    return generator.randint(0, 2, (count, PIXELS)).astype(np.uint8)


def posterior_means(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """Posterior means `(images, latent)` of images `(images, 784)`, uint8."""
    return torch.cat(
        [posterior.mean for posterior in _posteriors(model, images, batch_size)]
    ).numpy()


def kl_scores(model: BernoulliVAE, images: Tensor, batch_size: int = 1000) -> np.ndarray:
    """KL divergence to the prior of each image's posterior, `(images,)` nats, from images as above."""
    posteriors = _posteriors(model, images, batch_size)
    return torch.cat([objective.kl(posterior) for posterior in posteriors]).double().numpy()


@torch.no_grad()
def reconstruct(model: BernoulliVAE, images: np.ndarray) -> np.ndarray:
    """Probabilities `(images, 784)` of the pixels at the posterior mean of images `(images, 784)`, uint8."""
    return torch.sigmoid(model.decode(model.encode(torch.from_numpy(images).float()).mean)).numpy()


@torch.no_grad()
def anomaly_scores(
    model: BernoulliVAE, images: np.ndarray, batch_size: int = 1000
) -> dict[str, np.ndarray]:
    """By name, scores `(images,)` in nats of images `(images, 784)`, the higher the stranger.

    `kl` as above; `reconstruction`, -log p(x | z) at the posterior mean; `negative_elbo`, their sum.
    """
    terms = []
    for batch in torch.from_numpy(images).split(batch_size):
        pixels = batch.float()
        posterior = model.encode(pixels)
        terms.append(objective.terms(model.decode(posterior.mean), posterior, pixels))
    reconstruction, kl = torch.cat(terms, dim=1).double().numpy()
    return {"kl": kl, "reconstruction": reconstruction, "negative_elbo": reconstruction + kl}


@torch.no_grad()
def _posteriors(model: BernoulliVAE, images: Tensor, batch_size: int) -> Iterator[Posterior]:
    for batch in images.split(batch_size):
        yield model.encode(batch.float())


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
