"""Find what the 2-d loss table would read after some batches of earlier training, for 8 seeds.

The post's 2-d table begins where no fresh model does. A run of one more epoch holds, for any number
of batches before, the losses of the ten epochs after them: each a window of an epoch's batches.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

from collections.abc import Iterator
from pathlib import Path

from vae.arithmetic import pin
from vae.cli import arguments
from vae.data import Split, load_split
from vae.files import write_csv
from vae.params import Params, check_params
from vae.training import begin, evaluate, fit

import pandas as pd
import torch

SEEDS = range(8)
BATCHES = range(0, 301, 25)


def main() -> None:
    data, output = arguments(__doc__, "binarized", "output")
    params = check_params(Path("params.yaml"))
    pin(params.arithmetic)
    train, test = load_split(data, "train"), load_split(data, "test")
    rows = []
    for seed in SEEDS:
        rows += shifted_losses(params, seed, train, test)
        print(f"seed {seed} of {SEEDS[0]} to {SEEDS[-1]}", flush=True)
    write_csv(output, pd.DataFrame(rows))


def shifted_losses(
    params: Params, seed: int, train: Split, test: Split
) -> Iterator[dict[str, float]]:
    """Yield `seed, batches, epoch, train_loss, test_loss` for each of `BATCHES` and each epoch."""
    size, epochs = params.train.batch_size, params.train.epochs
    settings = params.train.model_copy(update={"epochs": epochs + 1})
    start = begin(seed, params.figures, settings, params.train_2d, train, test)
    batches = -(-len(train.images) // size)
    total = [0.0]  # loss of all images until the end of each batch
    tests = {}  # test loss after so many batches

    def on_batch(terms: torch.Tensor) -> None:
        done = len(total)
        total.append(total[-1] + terms[:, (done - 1) % batches * size :].sum().item())
        if done >= batches and done % batches in BATCHES:
            draws = start.stream.test_pass(len(test.images), start.model.latent_size)
            loss = evaluate(start.model, start.test_images, draws, size)
            tests[done] = loss.negative_elbo

    for _ in fit(start, settings, on_batch=on_batch):
        pass
    for shift in BATCHES:
        for epoch in range(1, epochs + 1):
            end = shift + epoch * batches
            mean = (total[end] - total[end - batches]) / len(train.images)
            place = {"seed": seed, "batches": shift, "epoch": epoch}
            yield {**place, "train_loss": mean, "test_loss": tests[end]}


if __name__ == "__main__":
    cli.run(main)
