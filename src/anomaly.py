"""Tell noise from digits by the KL divergence of the 20-d model's posterior to the prior, as the post does;
and several kinds of anomalies by that score and two others."""

from vae import cli

cli.begin()

from pathlib import Path

from vae.arithmetic import pin
from vae.cli import arguments
from vae.data import load_split
from vae.files import write_json, written_whole
from vae.model import load_model
from vae.params import read_params
from vae.report import figures as draw
from vae.scores import (
    FAILS_BELOW,
    anomalies,
    anomaly_scores,
    detection,
    fails_on,
    kl_scores,
    noise_images,
    reconstruct,
)

import numpy as np
import torch


def main() -> None:
    data, weights, metrics, plots = map(
        Path, arguments(__doc__, "binarized", "weights", "metrics", "plots")
    )
    seed, arithmetic, binarized, settings = read_params("seed", "arithmetic", "binarize", "anomaly")
    pin(arithmetic)
    model = load_model(weights)
    generator = np.random.RandomState(seed)
    noise = noise_images(generator, 1)
    fresh = noise_images(generator, settings.noise_images)
    training, (noise_kl,), fresh_kl = (
        kl_scores(model, torch.from_numpy(images), settings.batch_size)
        for images in (load_split(data, "train").images, noise, fresh)
    )
    scores = judge(training, float(noise_kl), fresh_kl, settings.threshold_percentile)
    test = load_split(data, "test").images
    ordinary = anomaly_scores(model, test, settings.batch_size)
    samples = anomalies(test, settings.noise_images, binarized.threshold, generator)
    found = {
        kind: anomaly_scores(model, images, settings.batch_size) for kind, images in samples.items()
    }
    kinds = {kind: detection(ordinary, of_kind) for kind, of_kind in found.items()}
    verdict = {"kinds": kinds, "fails_on": fails_on(kinds), "fails_below": FAILS_BELOW}
    write_json(metrics / "anomaly.json", {**scores, **verdict})
    with written_whole(plots / "anomalies.png") as path:
        pairs = {
            kind: (images[0], reconstruct(model, images[:1])[0]) for kind, images in samples.items()
        }
        draw.save_figure(path, draw.anomaly_scores(pairs, ordinary, found, kinds))
    with written_whole(plots / "kl-divergence.png") as path:
        draw.save_figure(path, draw.kl_histogram(training, scores["noise_kl"], scores["threshold"]))
    with written_whole(plots / "noise.png") as path:
        draw.save_png(path, draw.enlarged(draw.strip(noise * np.uint8(255)), 8))
    print(
        f"KL of the training images: {scores['training_kl_mean']:.3f} +- "
        f"{scores['training_kl_standard_deviation']:.3f}; of the noise image: {scores['noise_kl']:.3f} "
        f"(z-score {scores['noise_z_score']:.1f}); of {settings.noise_images} more, "
        f"{scores['noise_images_caught']:.1%} lie above the threshold {scores['threshold']:.3f}"
    )
    for name, failed in verdict["fails_on"].items():
        print(f"{name} does not tell from digits: {', '.join(failed) or '-'}")


def judge(
    training: np.ndarray, noise: float, fresh: np.ndarray, percentile: float
) -> dict[str, float]:
    """Where the KL of a noise image, and of more of them `(images,)`, falls among the training images'.

    All KL are in nats; shares are fractions. The z-score is the distance from the training images'
    mean in their standard deviations, as of a normal distribution fitted to them.
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


if __name__ == "__main__":
    cli.run(main)
