"""Estimate the log-likelihood of test images, split the KL, and give the loss in other units."""

import vae.environment  # noqa: F401

import numpy as np

from exact.random import Generator
from vae import cli
from vae.data import load_split, raw_files, read_idx
from vae.decomposition import decomposition, units
from vae.files import write_json
from vae.importance import log_likelihoods, mean_and_error
from vae.model import load_model
from vae.params import MODELS, read_params
from vae.report import figures as draw
from vae.report.score_charts import kl_bars


def main() -> None:
    paths = cli.arguments(__doc__, "raw", "binarized", "models", "output", "plots")
    seed, settings = read_params("seed", "likelihood")
    test = load_split(paths.binarized, "test").images
    gray = read_idx(raw_files(paths.raw)["test"][0], 3).reshape(test.shape)
    images = test[: settings.images]
    metrics = {"images": len(images), "samples": settings.samples, "test_images": len(test)}
    for name in MODELS:
        model = load_model(paths.models / f"{name}.safetensors")
        values, sizes = log_likelihoods(model, images, settings.samples, Generator(seed))
        mean, error = mean_and_error(values)
        metrics[name] = {
            "test_log_likelihood": mean,
            "standard_error": error,
            # The last bits of NumPy's exp depend on the processor.
            "effective_samples": round(float(np.mean(sizes)), 3),
            "decomposition": decomposition(model, test, Generator(seed)),
            "units": units(model, test, gray),
        }
        found = f"{name}: log-likelihood of {len(images)} images: {mean:.3f} +- {error:.3f} nats"
        print(found, flush=True)
    write_json(paths.output, metrics)
    kl = {name: metrics[name]["decomposition"]["kl_by_dimension"] for name in MODELS}
    draw.save_figure(paths.plots / "kl-by-dimension.png", kl_bars(kl))


if __name__ == "__main__":
    cli.run(main)
