"""Draw every figure of the post from the recorded frames, the trained models and the losses."""

from functools import partial
from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np
import torch

from exact.random import Generator
from vae import cli
from vae.data import load_split, tiled
from vae.frames import grid_axis, latent_grid, load_frames, quantized
from vae.inference import posterior_means, probabilities
from vae.losses import load_losses
from vae.model import VAE, load_model
from vae.params import MODELS, read_params
from vae.report import figures as draw
from vae.report.plane import digit_shares, manifold_plane, manifold_regions
from vae.reproduction.published import load_published

# Of samples.png: images from the prior, and images from one test image to another.
SAMPLES, STEPS = 40, 10


def main() -> None:
    data, models, plots = cli.arguments(__doc__, "binarized", "models", "plots")
    seed, dataset, binarized, settings = read_params(
        "seed", "download.dataset", "binarize", "visualize"
    )
    recorded, training, latent_size = read_params("figures", "train", "train-20d.latent_size")
    train, test = load_split(data, "train"), load_split(data, "test")

    losses = {name: load_losses(plots / f"{name}-losses.csv") for name in MODELS}
    sizes = {"20d": latent_size, "2d": 2}
    published = load_published(Path("data/published"), dataset, binarized).losses
    draw.save_figure(plots / "losses.png", draw.loss_curves(losses, published, sizes))

    images = test.images[list(recorded.images)]
    originals = draw.enlarged(tiled(quantized(images), 1), settings.image_scale)
    draw.save_png(plots / "originals.png", originals)

    def pairs(frames: np.ndarray) -> np.ndarray:
        """Put reconstructions `(frames, images, 784)` below the originals."""
        below = draw.enlarged(tiled(frames, 1), settings.image_scale)
        return np.concatenate((np.broadcast_to(originals, below.shape), below), axis=1)

    size = recorded.grid_size
    grids = partial(tiled, rows=size)
    passed = draw.frame_epochs(len(train.images), training, recorded.interval)
    for model, name, column, count, drawn in (
        ("20d", "reconstruction", "reconstructions", len(images), pairs),
        ("2d", "manifold", "manifold", size**2, grids),
    ):
        frames = load_frames(models / f"{model}-frames.arrow", column, count)
        trained = load_frames(models / f"{model}-epochs.arrow", column, count)[-1:]
        early = getattr(settings, f"early_{name}")
        for path, animation in ((f"{name}.gif", settings.whole), (f"{name}-early.gif", early)):
            chosen = slice(None, animation.first, animation.every)
            shown, epochs = frames[chosen], passed[chosen]
            if animation.first is None:  # the trained model is its end
                shown = np.concatenate((shown, trained))
                epochs = np.append(epochs, training.epochs)
            draw.save_gif(plots / path, drawn(shown), epochs, animation.milliseconds)
            print(f"{path}: {len(shown)} frames of {animation.milliseconds} ms", flush=True)
        if name == "reconstruction":
            draw.save_png(plots / "reconstruction.png", pairs(trained)[0])

    vaes = {name: load_model(models / f"{name}.safetensors", sizes[name]) for name in MODELS}
    fakes = {name: fake_images(model, images, seed) for name, model in vaes.items()}
    draw.save_figure(plots / "samples.png", draw.sample_images(fakes, sizes))

    axis = grid_axis(size, recorded.grid_quantiles)
    manifold = grids(decoded(vaes["2d"], latent_grid(axis)))
    draw.save_figure(plots / "manifold.png", manifold_plane(manifold, axis))
    shares = np.empty((0, 1, 1))  # without labels there are no boundaries
    if train.labels is not None:
        means = posterior_means(vaes["2d"], train.images)
        quantiles, voters = recorded.grid_quantiles, settings.neighbours
        shares = digit_shares(means, train.labels, size, quantiles, voters)
    draw.save_figure(plots / "manifold-regions.png", manifold_regions(manifold, shares))
    means = posterior_means(vaes["2d"], test.images)
    draw.save_figure(plots / "latent.png", draw.latent_scatter(means, test.labels))


def fake_images(model: VAE, images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode samples of the prior, `(SAMPLES, 784)`, and points of a line, `(STEPS, 784)`; uint8.

    The line leads from the posterior mean of the first of `images` `(n, 784)` to the last one's.
    """
    first, last = posterior_means(model, images[[0, -1]])
    noise = Generator(seed).normal(SAMPLES, len(first)).numpy()
    steps = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
    grays = decoded(model, np.concatenate((noise, first + steps * (last - first))))
    return grays[:SAMPLES], grays[SAMPLES:]


def decoded(model: VAE, z: np.ndarray) -> np.ndarray:
    """Decode latent points `(n, latent)` to gray values `(n, 784)`, uint8."""
    return quantized(probabilities(model, torch.from_numpy(z)))


if __name__ == "__main__":
    cli.run(main)
