"""A model in the exact arithmetic of exact.c: training steps, and passes forward.

Arrays are NumPy's, float32 and row by row unless it says otherwise.
"""

import weakref
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from vae.kernel import library
from vae.terms import address

BLOCK = 256  # images that go through a model at once; their activations fit a processor's cache


def buffer(count: int) -> np.ndarray:
    """Zeros `(count,)` as float32, with room behind them that the kernel may read."""
    return np.zeros(count + 128, np.float32)[:count]


class Network:
    """A model's values and its passes forward.

    `encoder` and `decoder` are layer sizes, `(784, ..., 2 latent)` and `(latent, ..., 784)`.
    `values` is the flat buffer that holds, layer by layer, weights and biases; `layers` are views
    of it as torch.nn.Linear has them, `(outputs, inputs)` and `(outputs,)`. They may be changed in
    place at any time.
    """

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
        self.sizes = (tuple(encoder), tuple(decoder))
        shapes = [*pairwise(encoder), *pairwise(decoder)]
        self.pixels, self.latent = encoder[0], decoder[0]
        self.values = buffer(sum((inputs + 1) * outputs for inputs, outputs in shapes))
        self.layers = self.views(self.values)
        self._net = _Net(self, BLOCK, None)

    def views(self, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each layer's weights and biases in a flat buffer laid out as `values`."""
        layers, at = [], 0
        for inputs, outputs in (pair for sizes in self.sizes for pair in pairwise(sizes)):
            end = at + inputs * outputs
            layers.append((values[at:end].reshape(inputs, outputs).T, values[end : end + outputs]))
            at = end + outputs
        return layers

    def named_values(self) -> dict[str, np.ndarray]:
        """Copies of the values, by the names that a `torch.nn.Sequential` with ReLUs gives them."""
        encoders, found = len(self.sizes[0]) - 1, {}
        for number, (weight, bias) in enumerate(self.layers):
            part = "encoder" if number < encoders else "decoder"
            name = f"{part}.{2 * (number - (number >= encoders) * encoders)}"
            found[f"{name}.weight"] = np.ascontiguousarray(weight)
            found[f"{name}.bias"] = bias.copy()
        return found

    def restore(self, named: Mapping[str, np.ndarray]) -> None:
        """Set the values from what `named_values` gave. Raises ValueError unless all fit."""
        expected = self.named_values()
        for name, value in expected.items():
            given = named.get(name)
            if given is None or (given.shape, given.dtype) != (value.shape, value.dtype):
                raise ValueError(f"{name} should be {value.dtype} {value.shape}")
            if not np.isfinite(given).all():
                raise ValueError(f"{name} is not finite")
        if len(named) != len(expected):
            raise ValueError(f"unknown names: {', '.join(sorted(named.keys() - expected.keys()))}")
        values = iter(named[name] for name in expected)
        for weight, bias in self.layers:
            weight[...], bias[...] = next(values), next(values)

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log-variance of the posterior, each `(n, latent)`, of images `(n, 784)`, uint8 0
        or 1."""
        posterior = np.empty((len(images), 2 * self.latent), np.float32)
        at = address(images, np.uint8, len(images), self.pixels)
        library().encode(self._net.pointer, at, len(images), posterior.ctypes.data)
        mean, log_variance = np.split(posterior, 2, axis=1)
        return np.ascontiguousarray(mean), np.ascontiguousarray(log_variance)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Logits `(n, 784)` of a pixel being 1, from `latent`, `(n, latent)`."""
        logits = np.empty((len(latent), self.pixels), np.float32)
        at = address(latent, np.float32, len(latent), self.latent)
        library().decode(self._net.pointer, at, len(latent), logits.ctypes.data)
        return logits


class _Net:
    """The library's own part of a model: room for activations, freed with this object."""

    def __init__(self, network: Network, room: int, gradients: np.ndarray | None) -> None:
        encoder, decoder = network.sizes
        sizes = np.array(encoder + decoder, np.int64)
        self.kept = network.values, gradients  # to live as long as the pointers to them
        layers = len(encoder) - 1, len(decoder) - 1
        values, at = network.values.ctypes.data, gradients is not None and gradients.ctypes.data
        self.pointer = library().make_net(sizes.ctypes.data, *layers, room, values, at or None)
        if not self.pointer:
            raise MemoryError(f"no memory for {room} images in layers of {encoder} and {decoder}")
        weakref.finalize(self, library().free_net, self.pointer)


class Trainer:
    """Trains a network by Adam (Kingma and Ba, 2015) in the "epsilon hat" form at the end of its
    section 2.

    `network.values`, `first`, `second` (flat float32) and `steps` are all that the next step
    depends on: copy them out to keep a state, and into them to go on from it. `gradients` is laid
    out as `values`.
    """

    def __init__(
        self,
        network: Network,
        most: int,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        beta: float = 1.0,
    ) -> None:
        self.network, self.most, self.settings = network, most, (learning_rate, *betas, epsilon)
        self.beta = beta
        self.gradients, self.first, self.second = (buffer(network.values.size) for _ in range(3))
        self.steps = 0
        self._net = _Net(network, most, self.gradients)

    def gradient(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Set `gradients` to those of the summed reconstruction + `beta` KL of `images[rows]`.

        `images` `(n, 784)` uint8 0 or 1, `rows` `(batch,)` int64, `noise` `(batch, latent)`
        float32, one posterior sample each. Returns reconstruction and KL, `(2, batch)` float64,
        nats per image; what overflowed is not finite there.
        """
        count, network = len(rows), self.network
        terms = np.empty((2, count))
        if not 0 < count <= self.most:
            raise ValueError(f"a batch of {count} images; at most {self.most} were announced")
        library().gradient(
            self._net.pointer,
            address(images, np.uint8, len(images), network.pixels),
            address(rows, np.int64, count),
            count,
            address(noise, np.float32, count, network.latent),
            self.beta,
            terms.ctypes.data,
        )
        return terms

    def step(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Set `gradients` and update the values by them; arguments and terms as in `gradient`."""
        terms = self.gradient(images, rows, noise)
        self.steps += 1
        buffers = (self.network.values, self.gradients, self.first, self.second)
        library().adam(
            *(b.ctypes.data for b in buffers), self.first.size, self.steps, *self.settings
        )
        return terms

    def write_back(self) -> None:
        """Do nothing: the steps change the network's own values."""

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on, the values included."""
        buffers = {"values": self.network.values, "first": self.first, "second": self.second}
        return {**{name: b.copy() for name, b in buffers.items()}, "steps": np.array(self.steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        buffers = {"values": self.network.values, "first": self.first, "second": self.second}
        for name, buffer_ in buffers.items():
            buffer_[...] = state[name]
        self.steps = int(state["steps"])
