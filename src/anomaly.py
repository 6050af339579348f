"""Separate noise from the data by the KL divergence under the 20-d model, as the post does; and
several kinds of anomalies by that score and two others."""

from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np

from vae import cli, inference, scores
from vae.data import load_split, tiled
from vae.files import write_json
from vae.model import load_model
from vae.params import read_params
from vae.report import figures as draw
from vae.report.score_charts import kl_histogram, score_histograms
from vae.reproduction.published import load_published


def main() -> None:
    data, weights, metrics, plots = cli.arguments(
        __doc__, "binarized", "weights", "metrics", "plots"
    )
    seed, dataset, binarized, settings = read_params(
        "seed", "download.dataset", "binarize", "anomaly"
    )
    model = load_model(weights)
    train, test = (load_split(data, split).images for split in ("train", "test"))
    generator = np.random.RandomState(seed)
    noise = scores.noise_images(generator, 1)
    fresh = scores.noise_images(generator, settings.noise_images)
    samples = scores.anomalies(test, settings.noise_images, binarized.threshold, generator)

    training = inference.kl_scores(model, train)
    (noise_kl,) = inference.kl_scores(model, noise).tolist()
    fresh_kl = inference.kl_scores(model, fresh)
    summary = scores.noise_summary(training, noise_kl, fresh_kl, settings.threshold_percentile)
    ordinary = inference.anomaly_scores(model, test, settings.batch_size)
    found = {
        kind: inference.anomaly_scores(model, images, settings.batch_size)
        for kind, images in samples.items()
    }
    kinds = {kind: scores.detection(ordinary, of_kind) for kind, of_kind in found.items()}
    failed = scores.fails_on(kinds)
    verdict = {"kinds": kinds, "fails_on": failed, "fails_below": scores.FAILS_BELOW}
    write_json(metrics / "anomaly.json", summary | verdict)

    pairs = {
        kind: (images[0], inference.reconstruct(model, images[:1])[0])
        for kind, images in samples.items()
    }
    draw.save_figure(plots / "anomalies.png", score_histograms(pairs, ordinary, found, kinds))
    marks = {"threshold": summary["threshold"], "noise image": noise_kl}
    if published := load_published(Path("data/published"), dataset, binarized).index.noise_kl:
        marks[f"the {published.source}'s noise image"] = published.value
    draw.save_figure(plots / "kl-divergence.png", kl_histogram(training, marks))
    draw.save_png(plots / "noise.png", draw.enlarged(tiled(noise * np.uint8(255), 1), 8))
    mean, deviation = (summary[f"training_kl_{name}"] for name in ("mean", "standard_deviation"))
    print(f"KL of the training images: {mean:.3f} +- {deviation:.3f} nats")
    print(f"KL of the noise image: {noise_kl:.3f}; threshold: {summary['threshold']:.3f}, above it")
    print(f"{summary['noise_images_caught']:.1%} of {settings.noise_images} more noise images")
    for name, missed in failed.items():
        name = scores.SCORE_NAMES[name]
        print(f"{name} does not separate from test images: {', '.join(missed) or '-'}")


if __name__ == "__main__":
    cli.run(main)
