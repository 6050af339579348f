"""Compute the 2-d loss table of models that were trained on some batches before, for 8 seeds.

The post's 2-d table does not start from a fresh model. One run of an extra epoch gives the table
for each number of earlier batches: its epochs are windows over the batches of the run.
"""

import math
from pathlib import Path
import vae.environment  # noqa: F401

import pandas as pd
from torch import Tensor

from vae import cli
from vae.data import Split, load_split
from vae.files import write_csv
from vae.params import Params, check_params
from vae.training import fit, prepare
from vae.training import test as test_losses

SEEDS = range(8)
BATCHES = range(0, 301, 25)


def main() -> None:
    data, output = cli.arguments(__doc__, "binarized", "output")
    params = check_params(Path("params.yaml"))
    train, test = load_split(data, "train"), load_split(data, "test")
    tables = []
    for seed in SEEDS:
        tables.append(shifted_losses(params, seed, BATCHES, train, test))
        print(f"seed {seed} of {SEEDS[0]} to {SEEDS[-1]}", flush=True)
    write_csv(output, pd.concat(tables))


def shifted_losses(
    params: Params, seed: int, before: range, train: Split, test: Split
) -> pd.DataFrame:
    """Return the 2-d model's losses by epoch for each number of earlier batches in `before`.

    Columns: `seed, batches, epoch, train_loss, test_loss`.
    """
    settings = params.train.model_copy(update={"epochs": params.train.epochs + 1})
    start = prepare(seed, params.figures, settings, params.train_2d, train, test)
    batches = -(-len(train.images) // settings.batch_size)
    losses: list[float] = []  # of each batch, summed over its images
    tests: dict[int, float] = {}  # by the number of batches

    def on_batch(terms: Tensor) -> None:
        first = len(losses) % batches * settings.batch_size
        losses.append(math.fsum(terms[:, first:].flatten().tolist()))
        if len(losses) >= batches and len(losses) % batches in before:
            draws = start.stream.epoch(len(test.images), start.latent_size, frames=False)
            tests[len(losses)] = test_losses(start.model, start.test_images, draws).negative_elbo

    for _ in fit(start, settings, on_batch=on_batch):
        pass
    epochs = range(1, params.train.epochs + 1)
    rows = pd.DataFrame([(shift, epoch) for shift in before for epoch in epochs])
    rows = rows.set_axis(["batches", "epoch"], axis=1)
    ends = rows["batches"] + rows["epoch"] * batches
    means = [math.fsum(losses[end - batches : end]) / len(train.images) for end in ends]
    rows.insert(0, "seed", seed)
    return rows.assign(train_loss=means, test_loss=ends.map(tests))


if __name__ == "__main__":
    cli.run(main)
