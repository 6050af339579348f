"""The random numbers of a run, drawn in the order in which the author's notebook of 2019 drew them.

The notebook seeds torch's global CPU generator once and trains the 20-d model, then the 2-d one.
Everything random comes from that one stream, in this order:

1. each layer's initial weights and biases (`nn.Linear`'s own distribution); 2. a frame for the
figures: one standard normal of shape `(1, latent)` for each of the images reconstructed; 3. each
training epoch: a 64-bit seed that the data loader draws for its workers, a permutation of the
images, and for each batch the noise of the posterior sample, followed by a frame after every
`interval`-th batch; 4. each test pass: the same seed and permutation, and the noise of each batch,
without frames; 5. the next model continues where the last one ended.

No draw depends on a weight or a loss. Thus an epoch's draws are made ahead, and the second
model's start is reached by drawing, without training the first. Each noise tensor is drawn in the
notebook's shape, since torch's normals depend on how many are asked for.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from exact.random import Generator


class Draws(NamedTuple):
    """An epoch's draws."""

    order: Tensor  # (images,) int64
    noise: Tensor  # (images, latent) float32, for the images in that order
    frame_noise: Tensor  # (frames, reconstructions, latent) float32


class RandomStream:
    """One generator, which draws in the notebook's order. `reconstructions` is the number of images
    of a frame, `interval` the number of batches between two frames."""

    def __init__(self, seed: int, batch_size: int, reconstructions: int, interval: int) -> None:
        self.generator = Generator(seed)
        self.batch_size = batch_size
        self.reconstructions = reconstructions
        self.interval = interval

    @torch.no_grad()
    def initialise(self, model: nn.Module) -> None:
        """Draw weights and biases of a model's linear and convolutional layers, in its order.

        Uniform in +-1/sqrt(inputs of an output), as PyTorch's own initial values are. A layer of
        `drawn_in_parts` draws as so many layers would, one after the other.
        """
        for layer in model.modules():
            if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                continue
            inputs, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            bound, parts = 1 / math.sqrt(inputs), getattr(layer, "drawn_in_parts", 1)
            biases = [None] * parts if layer.bias is None else layer.bias.chunk(parts)
            for weight, bias in zip(layer.weight.chunk(parts), biases, strict=True):
                weight.copy_(self.generator.uniform(bound, *weight.shape))
                if bias is not None:
                    bias.copy_(self.generator.uniform(bound, *bias.shape))

    def frame(self, latent_size: int) -> Tensor:
        """Draw the noise of one frame, `(reconstructions, latent)`."""
        noise = torch.empty(self.reconstructions, latent_size)
        self.generator.fill_normal(list(noise))
        return noise

    def skip_run(
        self,
        model: nn.Module,
        latent_size: int,
        epochs: int,
        training_images: int,
        test_images: int,
    ) -> None:
        """Advance the stream to where a whole run of a model ends, by drawing what it draws."""
        self.initialise(model)
        self.frame(latent_size)
        for _ in range(epochs):
            self.epoch(training_images, latent_size)
            self.epoch(test_images, latent_size, frames=False)

    def epoch(self, images: int, latent_size: int, frames: bool = True) -> Draws:
        """Draw for an epoch over this many training images, or, without frames, for a test pass."""
        self.generator.integer()  # the data loader's seed
        order = self.generator.permutation(images)
        noise = torch.empty(images, latent_size)
        batches = noise.split(self.batch_size)
        count = len(batches[:: self.interval]) if frames else 0
        frame_noise = torch.empty(count, self.reconstructions, latent_size)
        tensors = []
        for number, batch in enumerate(batches):
            tensors.append(batch)
            if frames and number % self.interval == 0:
                tensors += frame_noise[number // self.interval]
        self.generator.fill_normal(tensors)
        return Draws(order, noise, frame_noise)
