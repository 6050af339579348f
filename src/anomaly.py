"""Separate noise from digits by the KL divergence under the 20-d model, as the post does; and
several kinds of anomalies by that score and two others."""

import numpy as np

from vae import cli
from vae.data import load_split
from vae.files import write_json, written_whole
from vae.params import read_params
from vae.report import figures as draw
from vae.report.score_charts import kl_histogram, score_histograms
from vae.scores import (
    FAILS_BELOW,
    anomalies,
    anomaly_scores,
    detection,
    fails_on,
    kl_scores,
    noise_images,
    noise_summary,
    reconstruct,
)
from vae.weights import load_network


def main() -> None:
    data, weights, metrics, plots = cli.arguments(
        __doc__, "binarized", "weights", "metrics", "plots"
    )
    seed, binarized, settings = read_params("seed", "binarize", "anomaly")
    network = load_network(weights)
    generator = np.random.RandomState(seed)
    noise = noise_images(generator, 1)
    fresh = noise_images(generator, settings.noise_images)
    training, (noise_kl,), fresh_kl = (
        kl_scores(network, images) for images in (load_split(data, "train").images, noise, fresh)
    )
    scores = noise_summary(training, float(noise_kl), fresh_kl, settings.threshold_percentile)
    test = load_split(data, "test").images
    ordinary = anomaly_scores(network, test, settings.batch_size)
    samples = anomalies(test, settings.noise_images, binarized.threshold, generator)
    found = {
        kind: anomaly_scores(network, images, settings.batch_size)
        for kind, images in samples.items()
    }
    kinds = {kind: detection(ordinary, of_kind) for kind, of_kind in found.items()}
    verdict = {"kinds": kinds, "fails_on": fails_on(kinds), "fails_below": FAILS_BELOW}
    write_json(metrics / "anomaly.json", {**scores, **verdict})
    pairs = {
        kind: (images[0], reconstruct(network, images[:1])[0]) for kind, images in samples.items()
    }
    with written_whole(plots / "anomalies.png") as path:
        draw.save_figure(path, score_histograms(pairs, ordinary, found, kinds))
    with written_whole(plots / "kl-divergence.png") as path:
        draw.save_figure(path, kl_histogram(training, scores["noise_kl"], scores["threshold"]))
    with written_whole(plots / "noise.png") as path:
        draw.save_png(path, draw.enlarged(draw.strip(noise * np.uint8(255)), 8))
    print(
        f"KL of the training images: {scores['training_kl_mean']:.3f} +- "
        f"{scores['training_kl_standard_deviation']:.3f} nats; of the noise image: {noise_kl:.3f}; "
        f"of {settings.noise_images} more, {scores['noise_images_caught']:.1%} lie above the "
        f"threshold {scores['threshold']:.3f}"
    )
    for name, failed in verdict["fails_on"].items():
        print(f"{name} does not separate from digits: {', '.join(failed) or '-'}")


if __name__ == "__main__":
    cli.run(main)
