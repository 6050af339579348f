"""Estimate the log-likelihood of test images, the number by which VAEs are compared."""

from vae import cli

cli.begin()

from vae.arithmetic import pin
from vae.data import load_split
from vae.files import write_json
from vae.importance import log_likelihoods
from vae.model import load_model
from vae.params import MODELS, read_params

import torch


def main() -> None:
    data, models, output = cli.arguments(__doc__, "binarized", "models", "metrics")
    seed, arithmetic, settings = read_params("seed", "arithmetic", "likelihood")
    pin(arithmetic)
    images = torch.from_numpy(load_split(data, "test").images[: settings.images])
    metrics = {"images": len(images), "samples": settings.samples}
    for name in MODELS:
        model = load_model(models / f"{name}.safetensors")
        generator = torch.Generator().manual_seed(seed)
        values = log_likelihoods(model, images, settings.samples, generator)
        # The error is that of the mean over these images, as a sample of all there could be.
        mean, error = values.mean().item(), (values.std() / len(values) ** 0.5).item()
        metrics[name] = {"test_log_likelihood": mean, "standard_error": error}
        print(f"{name}: log-likelihood of {len(images)} images: {mean:.3f} +- {error:.3f} nats")
    write_json(output, metrics)


if __name__ == "__main__":
    cli.run(main)
