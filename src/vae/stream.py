"""The random numbers of a run, drawn in the order in which the author's notebook of 2019 drew them.

The notebook seeds torch's global CPU generator once and trains the 20-d model, then the 2-d one. Everything
random comes from that one stream, in this order:

1. each layer's initial weights and biases (`nn.Linear`'s own distribution);
2. a frame for the figures: one standard normal of shape `(1, latent)` for each of the images reconstructed;
3. each training epoch: a 64-bit seed that the data loader draws for its workers, a permutation of the images,
   and for each batch the noise of the posterior sample, followed by a frame after every `interval`-th batch;
4. each test pass: the same seed and permutation, and the noise of each batch, without frames;
5. the next model goes on where the last one ended.

No draw depends on a weight or a loss. So an epoch's draws are made ahead, in one go, on the CPU whatever the
device; and the stream is brought to where the second model starts by drawing, without training the first.
Each noise tensor is drawn in the notebook's shape, since torch's normals depend on how many are asked for.
"""

import math
from typing import NamedTuple

from vae.model import BernoulliVAE

import torch
from torch import Tensor, nn


class Draws(NamedTuple):
    """An epoch's draws: `order` `(images,)`, `noise` `(images, latent)` for the images in that order, and
    `frame_noise` `(frames, pictures, latent)`."""

    order: Tensor
    noise: Tensor
    frame_noise: Tensor

    def to(self, device: torch.device) -> "Draws":
        return Draws(*(tensor.to(device) for tensor in self))


class RandomStream:
    """One generator, asked in the notebook's order. `pictures` is how many images a frame reconstructs,
    `interval` how many batches lie between two frames."""

    def __init__(self, seed: int, batch_size: int, pictures: int, interval: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.batch_size = batch_size
        self.pictures = pictures
        self.interval = interval

    def initialise(self, model: BernoulliVAE) -> None:
        """Set the weights and biases of `model`, on the CPU: uniform in +-1/sqrt(inputs) each."""
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                # The author had a layer for the posterior's mean, and another for its log-variance.
                parts = 2 if layer is model.encoder[-1] else 1
                for weight, bias in zip(
                    layer.weight.chunk(parts), layer.bias.chunk(parts), strict=True
                ):
                    # What nn.Linear.reset_parameters does, with a generator of its own.
                    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=self.generator)
                    bound = 1 / math.sqrt(layer.in_features)
                    nn.init.uniform_(bias, -bound, bound, generator=self.generator)

    def frame(self, latent_size: int) -> Tensor:
        """Noise of one frame, `(pictures, latent)`."""
        return torch.cat([self._normal(1, latent_size) for _ in range(self.pictures)])

    def training_epoch(self, images: int, latent_size: int) -> Draws:
        """The draws of one epoch over this number of training images."""
        return self._epoch(images, latent_size, frames=True)

    def test_pass(self, images: int, latent_size: int) -> Draws:
        """The draws of one pass over this number of test images; no frames."""
        return self._epoch(images, latent_size, frames=False)

    def skip_run(
        self, model: BernoulliVAE, epochs: int, training_images: int, test_images: int
    ) -> None:
        """Draw what a whole run of `model` draws, so that the stream stands where that run would end."""
        self.initialise(model)
        self.frame(model.latent_size)
        for _ in range(epochs):
            self.training_epoch(training_images, model.latent_size)
            self.test_pass(test_images, model.latent_size)

    def _epoch(self, images: int, latent_size: int, frames: bool) -> Draws:
        torch.empty((), dtype=torch.int64).random_(
            generator=self.generator
        )  # the data loader's seed
        order = torch.randperm(images, generator=self.generator)
        noise, frame_noise = [], [torch.empty(0, self.pictures, latent_size)]
        for batch, start in enumerate(range(0, images, self.batch_size)):
            noise.append(self._normal(min(self.batch_size, images - start), latent_size))
            if frames and batch % self.interval == 0:
                frame_noise.append(self.frame(latent_size)[None])
        return Draws(order, torch.cat(noise), torch.cat(frame_noise))

    def _normal(self, rows: int, latent_size: int) -> Tensor:
        return torch.randn(rows, latent_size, generator=self.generator)
