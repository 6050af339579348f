"""Time a training step of a convolutional network beside the same one of torch.nn, by turns."""

import time
from statistics import median
from types import ModuleType

import torch
from torch import Tensor, nn

import exact

ROUNDS = 20


def network(layers: ModuleType) -> nn.Module:
    """Make the network of docs/own-experiment.md, convolutions alone, from exact.nn or torch.nn."""
    return nn.Sequential(
        *(layers.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), layers.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(layers.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU()),
        layers.ConvTranspose2d(16, 1, 4, 2, 1),
    )


def seconds(model: nn.Module, images: Tensor, threads: int) -> float:
    """Time forward and backward of 128 images."""
    torch.set_num_threads(threads)
    model.zero_grad()
    start = time.perf_counter()
    model(images).backward(images)
    return time.perf_counter() - start


def main() -> None:
    threads, images = exact.default_threads(), torch.rand(128, 1, 28, 28)
    ours, theirs = network(exact.nn), network(nn)
    # What exact leaves to PyTorch is small, and its threads would wait beside ours.
    rounds = [
        (seconds(ours, images, 1), seconds(theirs, images, threads)) for _ in range(ROUNDS + 3)
    ][3:]
    mine, peer = (1000 * median(column) for column in zip(*rounds, strict=True))
    ratio = median(a / b for a, b in rounds)
    print(
        f"Convolutions, a step of 128 images, {threads} threads, median of {ROUNDS}: "
        f"{mine:.1f} ms, torch.nn's {peer:.1f} ms; ours to it {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
