"""Draw every figure of the post from the recorded frames, the trained models and the losses."""

from functools import partial
from pathlib import Path

import numpy as np

from vae import cli
from vae.data import load_split, tiled
from vae.draws import Generator
from vae.frames import grid_axis, latent_grid, load_frames, quantized
from vae.losses import load_losses
from vae.network import Network
from vae.params import MODELS, Animation, read_params
from vae.report import figures as draw
from vae.report.plane import digit_shares, manifold_plane, manifold_regions
from vae.reproduction.published import load_published
from vae.scores import posterior_means
from vae.weights import load_network

# Of the figure of samples: how many from the prior, and the images from one to another.
SAMPLES, ACROSS = 40, 10


def main() -> None:
    data, models, plots = cli.arguments(__doc__, "binarized", "models", "plots")
    seed, dataset, binarized, recorded, deep, settings = read_params(
        "seed", "download.dataset", "binarize", "figures", "train-20d.latent_size", "visualize"
    )
    train, test = load_split(data, "train"), load_split(data, "test")

    losses = {name: load_losses(plots / f"{name}-losses.csv") for name in MODELS}
    sizes = {"20d": deep, "2d": 2}
    published = load_published(Path("data/published"), dataset, binarized).losses
    draw.save_figure(plots / "losses.png", draw.loss_curves(losses, published, sizes))

    images = test.images[list(recorded.images)]
    originals = draw.enlarged(tiled(images * np.uint8(255), 1), settings.image_scale)
    draw.save_png(plots / "originals.png", originals)

    def rows(frames: np.ndarray) -> np.ndarray:
        """Reconstructions `(frames, pictures, 784)` below the originals."""
        below = draw.enlarged(tiled(frames, 1), settings.image_scale)
        return np.concatenate((np.broadcast_to(originals, below.shape), below), axis=1)

    size, path = recorded.grid_size, models / "20d-frames.arrow"
    reconstructions = load_frames(path, "reconstructions", len(images))
    manifolds = load_frames(models / "2d-frames.arrow", "manifold", size**2)
    passed = draw.frame_epochs(path, len(manifolds), len(losses["2d"]), recorded.interval)
    grid = partial(tiled, rows=size)
    for name, frames, pictures, animation in (
        ("reconstruction", reconstructions, rows, settings.whole),
        ("reconstruction-early", reconstructions, rows, settings.early_reconstruction),
        ("manifold", manifolds, grid, settings.whole),
        ("manifold-early", manifolds, grid, settings.early_manifold),
    ):
        chosen = shown_frames(passed, recorded.interval, animation)
        pace = animation.milliseconds
        draw.save_gif(plots / f"{name}.gif", pictures(frames[chosen]), passed[chosen], pace)
        print(f"{name}.gif: {len(chosen)} frames of {pace} ms")
    draw.save_png(plots / "reconstruction.png", rows(reconstructions[-1:])[0])

    networks = {name: load_network(models / f"{name}.safetensors", sizes[name]) for name in MODELS}
    fakes = {name: fake_images(network, images, seed) for name, network in networks.items()}
    draw.save_figure(plots / "samples.png", draw.sample_pictures(fakes, sizes))

    network, axis = networks["2d"], grid_axis(size, recorded.grid_quantiles)
    manifold = tiled(quantized(network.decode(latent_grid(axis))), size)
    draw.save_figure(plots / "manifold.png", manifold_plane(manifold, axis))
    means = posterior_means(network, train.images)
    shares = np.empty((0, 1, 1))  # without labels there are no boundaries to draw
    if train.labels is not None:
        place = size, recorded.grid_quantiles
        shares = digit_shares(means, train.labels, *place, settings.neighbours)
    draw.save_figure(plots / "manifold-regions.png", manifold_regions(manifold, shares))
    means = posterior_means(network, test.images)
    draw.save_figure(plots / "latent.png", draw.latent_scatter(means, test.labels))


def shown_frames(passed: np.ndarray, interval: int, animation: Animation) -> np.ndarray:
    """Choose the frames of an animation by their epochs `(frames,)`; return their numbers.

    It counts those before training and after each epoch's first batch and each `interval` more, as
    the post did. The whole training also shows its last frame.
    """
    batches = np.rint(passed / passed[1]).astype(int)
    regular = np.flatnonzero(
        (batches == 0) | ((batches - 1) % round(1 / passed[1]) % interval == 0)
    )
    chosen = regular[: animation.first : animation.every]
    return chosen if animation.first else np.union1d(chosen, len(passed) - 1)


def fake_images(network: Network, images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode images, uint8: from samples of the prior, `(SAMPLES, 784)`; and in equal steps between
    the posterior means of the first and the last of `images` `(n, 784)`, `(ACROSS, 784)`."""
    noise = Generator(seed).normals(SAMPLES, network.latent)
    first, last = posterior_means(network, images[[0, -1]])
    steps = np.linspace(0, 1, ACROSS, dtype=np.float32)[:, None]
    decoded = quantized(network.decode(np.concatenate((noise, first + steps * (last - first)))))
    return decoded[:SAMPLES], decoded[SAMPLES:]


if __name__ == "__main__":
    cli.run(main)
