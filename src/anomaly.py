"""Separate noise from the data by the KL divergence under the 20-d model, as the post does.

Other kinds of anomalies, and two other scores, follow.
"""

from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np

from vae import cli, scores
from vae.data import load_split, tiled
from vae.files import write_json
from vae.inference import anomaly_scores, kl_scores, reconstruct
from vae.model import load_model
from vae.params import read_params
from vae.report import figures as draw
from vae.report.score_charts import kl_histogram, score_histograms
from vae.reproduction.published import load_published


def main() -> None:
    paths = cli.arguments(__doc__, "binarized", "weights", "metrics", "plots")
    seed, dataset, binarized, settings = read_params(
        "seed", "download.dataset", "binarize", "anomaly"
    )
    model = load_model(paths.weights)
    train, test = (load_split(paths.binarized, split).images for split in ("train", "test"))
    generator = np.random.RandomState(seed)
    noise = scores.noise_images(generator, 1)
    more_noise = scores.noise_images(generator, settings.noise_images)
    kinds = scores.anomalies(test, settings.noise_images, binarized.threshold, generator)

    training = kl_scores(model, train)
    (noise_kl,) = kl_scores(model, noise).tolist()
    more_kl = kl_scores(model, more_noise)
    summary = scores.noise_summary(training, noise_kl, more_kl, settings.threshold_percentile)
    ordinary = anomaly_scores(model, test, settings.batch_size)
    found = {
        kind: anomaly_scores(model, images, settings.batch_size) for kind, images in kinds.items()
    }
    areas = {kind: scores.detection(ordinary, strange) for kind, strange in found.items()}
    failed = scores.fails_on(areas)
    summary |= {"kinds": areas, "fails_on": failed, "fails_below": scores.FAILS_BELOW}
    write_json(paths.metrics / "anomaly.json", summary)

    examples = {
        kind: (images[0], reconstruct(model, images[:1])[0]) for kind, images in kinds.items()
    }
    histograms = score_histograms(examples, ordinary, found, areas)
    draw.save_figure(paths.plots / "anomalies.png", histograms)
    marks = {"threshold": summary["threshold"], "noise image": noise_kl}
    if published := load_published(Path("data/published"), dataset, binarized).index.noise_kl:
        marks[f"the {published.source}'s noise image"] = published.value
    draw.save_figure(paths.plots / "kl-divergence.png", kl_histogram(training, marks))
    draw.save_png(paths.plots / "noise.png", draw.enlarged(tiled(noise * np.uint8(255), 1), 8))
    mean, deviation = (summary[f"training_kl_{name}"] for name in ("mean", "standard_deviation"))
    print(f"KL of the training images: {mean:.3f} +- {deviation:.3f} nats")
    print(f"KL of the noise image: {noise_kl:.3f}; threshold: {summary['threshold']:.3f}, above it")
    print(f"{summary['noise_images_caught']:.1%} of {settings.noise_images} more noise images")
    for name, missed in failed.items():
        label = scores.SCORE_NAMES[name]
        print(f"{label} does not separate from test images: {', '.join(missed) or '-'}")


if __name__ == "__main__":
    cli.run(main)
