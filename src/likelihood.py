"""Estimate the log-likelihood of test images, the number by which VAEs are compared."""

from vae import cli

cli.begin()

import math

from vae.data import load_split
from vae.draws import Generator
from vae.files import write_json
from vae.importance import log_likelihoods
from vae.params import MODELS, read_params
from vae.weights import load_network


def main() -> None:
    data, models, output = cli.arguments(__doc__, "binarized", "models", "metrics")
    seed, settings = read_params("seed", "likelihood")
    images = load_split(data, "test").images[: settings.images]
    metrics = {"images": len(images), "samples": settings.samples}
    for name in MODELS:
        network = load_network(models / f"{name}.safetensors")
        generator = Generator(seed)
        values = log_likelihoods(network, images, settings.samples, generator)
        # The error is that of the mean over these images, as a sample of all there could be.
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        error = (squares / (len(values) - 1) / len(values)) ** 0.5
        metrics[name] = {"test_log_likelihood": mean, "standard_error": error}
        print(f"{name}: log-likelihood of {len(images)} images: {mean:.3f} +- {error:.3f} nats")
    write_json(output, metrics)


if __name__ == "__main__":
    cli.run(main)
