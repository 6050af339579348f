"""Train one of the two models; write its weights, its losses by epoch and the frames for the figures."""

import sys
from pathlib import Path

from vae.arithmetic import owner, pin
from vae.checkpoint import Checkpoint
from vae.data import Split, load_split
from vae.errors import UserError, arguments, run_stage
from vae.files import md5, write_json, write_text
from vae.fingerprint import fingerprint
from vae.frames import FrameRecorder, grid_axis, latent_grid
from vae.model import Architecture, BernoulliVAE, save_model
from vae.origin import flat
from vae.params import MODELS, Figures, Model, Train, read_params
from vae.tracking import MlflowRun, track_training
from vae.training import Epoch, begin, choose_device, fit

import pandas as pd
import torch
from tqdm import tqdm


def main() -> None:
    name, folder = arguments("model", "binarized")
    if name not in MODELS:
        raise UserError(f"there is no model {name}; it should be {' or '.join(MODELS)}")
    data = Path(folder)
    seed, arithmetic, figures, settings, architecture = read_params(
        "seed", "arithmetic", "figures", "train", f"train-{name}"
    )
    pin(arithmetic)
    params = {
        "seed": seed,
        "arithmetic": arithmetic,
        "figures": figures,
        "train": settings,
        "model": architecture,
    }
    if arithmetic == "portable":
        settings = settings.model_copy(update={"device": "cpu"})
    train, test = load_split(data, "train"), load_split(data, "test")
    check_images(figures, len(test.images))
    files = [data / "train.safetensors", data / "test.safetensors"]
    identity = fingerprint([name, flat(params), owner()], [md5(path) for path in files])
    checkpoint = Checkpoint(Path(".checkpoints") / name, identity)
    with track_training(name, params, files, choose_device(settings.device).type) as run:
        model, recorder, epochs = train_model(
            seed, figures, settings, architecture, train, test, run, checkpoint
        )

        weights = Path(f"models/{name}.safetensors")
        save_model(model, Architecture(**architecture.model_dump(exclude={"preceded_by"})), weights)
        recorder.save(Path(f"models/{name}-frames.npz"))
        rows = [epoch.row() for epoch in epochs]
        write_text(
            Path(f"plots/{name}-losses.csv"), pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        )
        write_json(Path(f"metrics/{name}.json"), rows[-1])
        checkpoint.remove()
        if run:
            run.finish(Path("models"), Path("plots"), recorder.at_epochs(settings.epochs))


def train_model(
    seed: int,
    figures: Figures,
    settings: Train,
    architecture: Model,
    train: Split,
    test: Split,
    run: MlflowRun | None,
    checkpoint: Checkpoint,
) -> tuple[BernoulliVAE, FrameRecorder, list[Epoch]]:
    """Train on the author's random stream, from where the model before this one left it."""
    start = begin(seed, figures, settings, architecture, train, test)
    grid = None
    if architecture.latent_size == 2:
        grid = latent_grid(grid_axis(figures.grid_size, figures.grid_quantiles))
        grid = grid.to(start.test_images.device)
    recorder = FrameRecorder(start.test_images[list(figures.images)], figures.gray_levels, grid)

    batches = -(-len(train.images) // settings.batch_size)
    epochs = []
    with tqdm(total=settings.epochs * batches, unit="batch", disable=not sys.stderr.isatty()) as bar:

        def show_batch(terms: torch.Tensor) -> None:
            # Reading the losses waits for the device, so not at every batch.
            if bar.update() and not bar.disable:
                bar.set_postfix_str(f"loss {terms.sum(dim=0).mean().item():.2f}", refresh=False)

        for epoch in fit(start, settings, recorder, show_batch, checkpoint):
            bar.update(epoch.number * batches - bar.n)  # what a checkpoint had
            epochs.append(epoch)
            if run:
                run.log_epoch(epoch)
            line = (
                f"epoch {epoch.number}, train loss: {epoch.train.negative_elbo:.6f}, "
                f"test loss: {epoch.test.negative_elbo:.6f}"
            )
            # Beside the bar on a terminal; flushed, so that a log file shows each epoch as it ends.
            tqdm.write(line) if not bar.disable else print(line, flush=True)
    return start.model, recorder, epochs


def check_images(figures: Figures, test_images: int) -> None:
    """The pictures to reconstruct must be among the test images. Raises UserError."""
    if max(figures.images) >= test_images:
        raise UserError(
            f"params.yaml: figures.images has {max(figures.images)}; it should be below {test_images}, "
            "the number of test images"
        )


if __name__ == "__main__":
    run_stage(main)
