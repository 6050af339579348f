"""Draw every figure of the post from the recorded frames, the trained models and the losses."""

from vae import cli

cli.begin()

from pathlib import Path

from vae.arithmetic import pin
from vae.cli import arguments
from vae.data import load_split
from vae.files import written_whole
from vae.frames import grid_axis, latent_grid, load_frames, quantized
from vae.model import load_model
from vae.params import MODELS, read_params
from vae.report import figures as draw
from vae.reproduction.published import load_losses, load_published
from vae.scores import posterior_means

import numpy as np
import torch


def main() -> None:
    data, models, plots = arguments(__doc__, "binarized", "models", "plots")
    arithmetic, recorded, settings = read_params("arithmetic", "figures", "visualize")
    pin(arithmetic)
    train, test = load_split(data, "train"), load_split(data, "test")

    with written_whole(plots / "losses.png") as path:
        losses = {name: load_losses(plots / f"{name}-losses.csv") for name in MODELS}
        draw.save_figure(path, draw.loss_curves(losses, load_published(Path("data/published"))))
    originals = draw.strip(test.images[list(recorded.images)] * np.uint8(255))
    originals = draw.enlarged(originals, settings.image_scale)
    with written_whole(plots / "originals.png") as path:
        draw.save_png(path, originals)

    def below_originals(frames: np.ndarray) -> np.ndarray:
        rows = draw.enlarged(draw.strip(frames), settings.image_scale)
        return np.concatenate((np.broadcast_to(originals, rows.shape), rows), axis=1)

    reconstructions = load_frames(models / "20d-frames.npz", "reconstructions")
    manifolds = load_frames(models / "2d-frames.npz", "manifold")
    for name, frames, animation, layout in (
        ("reconstruction", reconstructions, settings.whole, below_originals),
        ("reconstruction-early", reconstructions, settings.early_reconstruction, below_originals),
        ("manifold", manifolds, settings.whole, draw.mosaic),
        ("manifold-early", manifolds, settings.early_manifold, draw.mosaic),
    ):
        shown = layout(frames[: animation.first : animation.every])
        with written_whole(plots / f"{name}.gif") as path:
            draw.save_gif(path, shown, animation.milliseconds)
        print(f"{name}.gif: {len(shown)} frames of {animation.milliseconds} ms")

    model = load_model(models / "2d.safetensors")
    axis = grid_axis(recorded.grid_size, recorded.grid_quantiles)
    manifold = draw.mosaic(quantized(model.decode(latent_grid(axis))).numpy())
    with written_whole(plots / "manifold.png") as path:
        draw.save_png(path, manifold)
    with written_whole(plots / "manifold-regions.png") as path:
        means = posterior_means(model, torch.from_numpy(train.images))
        shares = draw.digit_shares(
            means, train.labels, recorded.grid_size, recorded.grid_quantiles, settings.neighbours
        )
        draw.save_figure(path, draw.manifold_regions(manifold, shares))
    with written_whole(plots / "latent.png") as path:
        means = posterior_means(model, torch.from_numpy(test.images))
        draw.save_figure(path, draw.latent_scatter(means, test.labels))


if __name__ == "__main__":
    cli.run(main)
