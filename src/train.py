"""Train one of the two models; write its weights, losses by epoch and frames for figures."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
import vae.environment  # noqa: F401

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from vae import cli
from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.data import Split, load_split
from vae.files import md5, write_csv, write_json
from vae.frames import FrameRecorder, grid_axis, latent_grid
from vae.identity import code_hash, identity
from vae.model import VAE, save_model
from vae.params import MODELS, Figures, Params, check_params, flat, training_params
from vae.tracking.live import live_run
from vae.training import Epoch, computes_exactly, fit, inexact_steps, prepare

# Without a terminal: a line every half minute instead of a bar.
LINES = {"delay": 30, "mininterval": 30, "bar_format": "{n_fmt} of {total_fmt} batches\n"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("binarized", type=Path, help="data/binarized")
    options = parser.parse_args()
    name, folder = options.model, options.binarized
    params = check_params(Path("params.yaml"))
    splits = [load_split(folder, split) for split in ("train", "test")]
    check_images(params.figures, len(splits[1].images))
    files = [folder / f"{split}.safetensors" for split in ("train", "test")]
    values = flat(training_params(params, name))
    training_id = identity(values, [md5(path) for path in files])
    checkpoint = Checkpoint(Path(".checkpoints") / name, f"{training_id} {code_hash()}")
    with live_run(name, values, files, training_id) as log_epoch:
        model, recorder, epochs = train_model(params, name, *splits, log_epoch, checkpoint)
        architecture = training_params(params, name)["model"]
        save_model(model, architecture, Path(f"models/{name}.safetensors"))
        recorder.save(Path(f"models/{name}-frames.arrow"), recorder.frames)
        recorder.save(Path(f"models/{name}-epochs.arrow"), recorder.ends)
        rows = [epoch.row() for epoch in epochs]
        write_csv(Path(f"plots/{name}-losses.csv"), pd.DataFrame(rows))
    # Last, when the run is complete: a stage that was killed before has no metrics, and runs again.
    checkpoint.remove()
    write_json(Path(f"metrics/{name}.json"), rows[-1])


def train_model(
    params: Params,
    name: str,
    train: Split,
    test: Split,
    on_epoch: Callable[[Epoch], None],
    checkpoint: Checkpoint,
) -> tuple[VAE, FrameRecorder, list[Epoch]]:
    """Train on the author's random stream, from where the model before this one left it."""
    figures, settings = params.figures, params.train
    architecture = training_params(params, name)["model"]
    start = prepare(params.seed, figures, settings, architecture, train, test)
    if computes_exactly(settings) and (names := inexact_steps(start, settings)):
        print(f"operations whose bits depend on this machine: {', '.join(names)}", flush=True)
    grid = None
    if architecture.latent_size == 2:
        grid = latent_grid(grid_axis(figures.grid_size, figures.grid_quantiles))
    recorder = FrameRecorder(test.images[list(figures.images)], figures.gray_levels, grid)

    batches = math.ceil(len(train.images) / settings.batch_size)
    epochs, terminal = [], sys.stderr.isatty()
    options = {} if terminal else LINES
    with tqdm(total=settings.epochs * batches, unit="batch", **options) as bar:

        def show_batch(terms: Tensor) -> None:
            # Summing the losses takes time, so not at every batch.
            if bar.update() and terminal:
                bar.set_postfix_str(f"loss {terms.sum(dim=0).mean().item():.2f}", refresh=False)

        for epoch in fit(start, settings, recorder, show_batch, checkpoint):
            bar.update(epoch.number * batches - bar.n)  # what a checkpoint had
            epochs.append(epoch)
            on_epoch(epoch)
            losses = epoch.train.negative_elbo, epoch.test.negative_elbo
            line = f"epoch {epoch.number}, train loss: {losses[0]:.6f}, test loss: {losses[1]:.6f}"
            if terminal:
                bar.write(line)  # above the bar
            else:
                print(line, flush=True)
    return start.model, recorder, epochs


def check_images(figures: Figures, test_images: int) -> None:
    """Raise UserError unless the images to reconstruct are among the test images."""
    if max(figures.images) >= test_images:
        raise UserError(
            f"params.yaml: figures.images has {max(figures.images)}; it should be below "
            f"{test_images}, the number of test images"
        )


if __name__ == "__main__":
    cli.run(main)
