"""The random numbers of a run, drawn in the order in which the author's notebook of 2019 drew them.

The notebook seeds torch's global CPU generator once and trains the 20-d model, then the 2-d one.
Everything random comes from that one stream, in this order:

1. each layer's initial weights and biases (`nn.Linear`'s own distribution); 2. a frame for the
figures: one standard normal of shape `(1, latent)` for each of the images reconstructed; 3. each
training epoch: a 64-bit seed that the data loader draws for its workers, a permutation of the
images, and for each batch the noise of the posterior sample, followed by a frame after every
`interval`-th batch; 4. each test pass: the same seed and permutation, and the noise of each batch,
without frames; 5. the next model goes on where the last one ended.

No draw depends on a weight or a loss. So an epoch's draws are made ahead, in one go, on the CPU
whatever the device; and the stream is brought to where the second model starts by drawing, without
training the first. Each noise tensor is drawn in the notebook's shape, since torch's normals depend
on how many are asked for. The numbers are torch's, by `vae.draws`, which gives the same bits on
every processor.
"""

import math
from typing import NamedTuple

import numpy as np

from vae.draws import Generator
from vae.network import Network


class Draws(NamedTuple):
    """An epoch's draws: `order` `(images,)` int64, `noise` `(images, latent)` float32 for the
    images in that order, and `frame_noise` `(frames, pictures, latent)` float32."""

    order: np.ndarray
    noise: np.ndarray
    frame_noise: np.ndarray


class RandomStream:
    """One generator, asked in the notebook's order. `pictures` is how many images a frame
    reconstructs, `interval` how many batches lie between two frames."""

    def __init__(self, seed: int, batch_size: int, pictures: int, interval: int) -> None:
        self.generator = Generator(seed)
        self.batch_size = batch_size
        self.pictures = pictures
        self.interval = interval

    def initialise(self, network: Network) -> None:
        """Set the network's weights and biases: uniform in +-1/sqrt(inputs), as nn.Linear's are."""
        heads = len(network.sizes[0]) - 2
        for number, (weight, bias) in enumerate(network.layers):
            # The author had a layer for the posterior's mean, and another for its log-variance.
            for rows in np.split(np.arange(len(bias)), 2 if number == heads else 1):
                bound = 1 / math.sqrt(weight.shape[1])
                weight[rows] = self.generator.uniforms(bound, len(rows), weight.shape[1])
                bias[rows] = self.generator.uniforms(bound, len(rows))

    def frame(self, latent_size: int) -> np.ndarray:
        """Noise of one frame, `(pictures, latent)`."""
        noise = np.empty((self.pictures, latent_size), np.float32)
        self.generator.fill_normals(list(noise))
        return noise

    def skip_run(
        self, network: Network, epochs: int, training_images: int, test_images: int
    ) -> None:
        """Bring the stream to where a whole run of `network` ends, by drawing what it draws."""
        self.initialise(network)
        self.frame(network.latent)
        for _ in range(epochs):
            self.epoch(training_images, network.latent)
            self.epoch(test_images, network.latent, frames=False)

    def epoch(self, images: int, latent_size: int, frames: bool = True) -> Draws:
        """The draws of one epoch over so many training images; of a test pass without frames."""
        self.generator.integer()  # the data loader's seed
        order = self.generator.permutation(images)
        noise = np.empty((images, latent_size), np.float32)
        firsts = range(0, images, self.batch_size)
        count = len(firsts[:: self.interval]) if frames else 0
        frame_noise = np.empty((count, self.pictures, latent_size), np.float32)
        arrays = []
        for batch, first in enumerate(firsts):
            arrays.append(noise[first : first + self.batch_size])
            if frames and batch % self.interval == 0:
                arrays += list(frame_noise[batch // self.interval])
        self.generator.fill_normals(arrays)
        return Draws(order, noise, frame_noise)
