"""Find how the estimated log-likelihood moves with the number of importance samples, to 5,000."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import src_path  # noqa: F401
from vae import cli
from vae.cli import arguments
from vae.data import load_split
from vae.draws import Generator
from vae.files import write_csv
from vae.importance import log_weights, mean_and_error
from vae.params import MODELS, read_params
from vae.terms import log_mean_exp
from vae.weights import load_network

IMAGES = 1000
SAMPLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def main() -> None:
    data, models, output = arguments(__doc__, "binarized", "models", "output")
    (seed,) = read_params("seed")
    images = load_split(data, "test").images[:IMAGES]
    write_csv(output, pd.concat([estimates(models, name, images, seed) for name in MODELS]))


def estimates(models: Path, name: str, images: np.ndarray, seed: int) -> pd.DataFrame:
    """The estimate, in nats, from the first 1, 2, ... of the same samples: columns `model, samples,
    log_likelihood, standard_error`."""
    network = load_network(models / f"{name}.safetensors")
    weights = log_weights(network, images, SAMPLES[-1], Generator(seed))
    progress = tqdm(weights, name, len(images), unit="image", disable=not sys.stderr.isatty())
    found = [[log_mean_exp(batch[:count]) for count in SAMPLES] for batch in progress]
    rows = [mean_and_error(values) for values in np.concatenate(found, axis=1)]
    print(f"{name}: {rows[-1][0]:.3f} nats with {SAMPLES[-1]} samples", flush=True)
    table = pd.DataFrame(rows, columns=["log_likelihood", "standard_error"])
    return table.assign(model=name, samples=SAMPLES)[
        ["model", "samples", "log_likelihood", "standard_error"]
    ]


if __name__ == "__main__":
    cli.run(main)
