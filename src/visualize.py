"""Draw every figure of the post from the recorded frames, the trained models and the losses."""

from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np
import torch

from exact.functional import sigmoid
from vae import cli
from vae.data import load_split, tiled
from vae.frames import grid_axis, latent_grid, load_frames, quantized
from vae.inference import decode, posterior_means
from vae.model import load_model
from vae.params import MODELS, Animation, read_params
from vae.report import figures as draw
from vae.reproduction.published import load_losses, load_published


def main() -> None:
    data, models, plots = cli.arguments(__doc__, "binarized", "models", "plots")
    dataset, binarized, recorded, deep, settings = read_params(
        "download.dataset", "binarize", "figures", "train-20d.latent_size", "visualize"
    )
    train, test = load_split(data, "train"), load_split(data, "test")

    losses = {name: load_losses(plots / f"{name}-losses.csv") for name in MODELS}
    sizes = {"20d": deep, "2d": 2}
    published = load_published(Path("data/published"), dataset, binarized).losses
    draw.save_figure(plots / "losses.png", draw.loss_curves(losses, published, sizes))

    originals = tiled(test.images[list(recorded.images)] * np.uint8(255), 1)
    originals = draw.enlarged(originals, settings.image_scale)
    draw.save_png(plots / "originals.png", originals)
    pictures = len(recorded.images)
    frames = load_frames(models / "20d-frames.arrow", "reconstructions", pictures)
    rows = draw.enlarged(tiled(frames, 1), settings.image_scale)
    rows = np.concatenate((np.broadcast_to(originals, rows.shape), rows), axis=1)
    animate(plots / "reconstruction.gif", rows, settings.whole)
    animate(plots / "reconstruction-early.gif", rows, settings.early_reconstruction)
    size, quantiles = recorded.grid_size, recorded.grid_quantiles
    manifolds = tiled(load_frames(models / "2d-frames.arrow", "manifold", size**2), size)
    animate(plots / "manifold.gif", manifolds, settings.whole)
    animate(plots / "manifold-early.gif", manifolds, settings.early_manifold)

    model = load_model(models / "2d.safetensors", latent_size=2)
    grid = torch.from_numpy(latent_grid(grid_axis(size, quantiles)))
    manifold = tiled(quantized(sigmoid(decode(model, grid)).numpy()), size)
    draw.save_png(plots / "manifold.png", manifold)
    means = posterior_means(model, train.images)
    shares = np.empty((0, 1, 1))  # without labels there are no boundaries to draw
    if train.labels is not None:
        shares = draw.digit_shares(means, train.labels, size, quantiles, settings.neighbours)
    draw.save_figure(plots / "manifold-regions.png", draw.manifold_regions(manifold, shares))
    means = posterior_means(model, test.images)
    draw.save_figure(plots / "latent.png", draw.latent_scatter(means, test.labels))


def animate(path: Path, frames: np.ndarray, animation: Animation) -> None:
    """Write the frames `(frames, height, width)` that an animation shows."""
    shown = frames[: animation.first : animation.every]
    draw.save_gif(path, shown, animation.milliseconds)
    print(f"{path.name}: {len(shown)} frames of {animation.milliseconds} ms")


if __name__ == "__main__":
    cli.run(main)
