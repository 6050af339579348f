"""Estimate the log-likelihood with 1 to 5,000 importance samples."""

import sys
import vae.environment  # noqa: F401

import numpy as np
import pandas as pd
from tqdm import tqdm

from exact.random import Generator
from vae import cli
from vae.data import load_split
from vae.files import md5, write_csv
from vae.importance import log_mean_exp, log_weights, mean_and_error
from vae.model import load_model
from vae.params import MODELS, read_params

IMAGES = 1000
SAMPLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def main() -> None:
    """Write one row per model and number of samples; all use the first of the same samples.

    Columns: `model, samples, log_likelihood, standard_error`, in nats, and `weights`, the checksum
    of the model's file.
    """
    data, models, output = cli.arguments(__doc__, "binarized", "models", "output")
    (seed,) = read_params("seed")
    images = load_split(data, "test").images[:IMAGES]
    rows = []
    for name in MODELS:
        path = models / f"{name}.safetensors"
        weights = log_weights(load_model(path), images, SAMPLES[-1], Generator(seed))
        progress = tqdm(weights, name, len(images), unit="image", disable=not sys.stderr.isatty())
        found = [[log_mean_exp(batch[:count]).numpy() for count in SAMPLES] for batch in progress]
        for samples, values in zip(SAMPLES, np.concatenate(found, axis=1), strict=True):
            mean, error = mean_and_error(values)
            row = {"model": name, "samples": samples, "log_likelihood": mean}
            rows.append({**row, "standard_error": error, "weights": md5(path)})
        print(f"{name}: {mean:.3f} nats with {samples} samples", flush=True)
    write_csv(output, pd.DataFrame(rows))


if __name__ == "__main__":
    cli.run(main)
