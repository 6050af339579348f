"""A model in the exact arithmetic of exact.c: training steps, and passes forward.

Arrays are NumPy's, float32 and row by row unless it says otherwise.
"""

import ctypes
import weakref
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from vae.kernel import call, expect
from vae.params import Train

BLOCK = 256  # images that go through a model at once; their activations fit a processor's cache


def buffer(count: int) -> np.ndarray:
    """Zeros `(count,)` as float32, with room behind them that the kernel may read."""
    return np.zeros(count + 128, np.float32)[:count]


class Network:
    """A model's values and its passes forward.

    `encoder` and `decoder` are layer sizes, `(784, ..., 2 latent)` and `(latent, ..., 784)`.
    `values` is the flat buffer that holds, layer by layer, weights and biases; `layers` are views
    of it as torch.nn.Linear has them, `(outputs, inputs)` and `(outputs,)`, and `named` the same by
    name. They may be changed in place at any time.
    """

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
        self.sizes = (tuple(encoder), tuple(decoder))
        shapes = [*pairwise(encoder), *pairwise(decoder)]
        self.pixels, self.latent = encoder[0], decoder[0]
        self.values = buffer(sum((inputs + 1) * outputs for inputs, outputs in shapes))
        self.named = self.views(self.values)
        parts = list(self.named.values())
        self.layers = list(zip(parts[::2], parts[1::2], strict=True))
        self._net = _make_net(self, self, BLOCK)

    def views(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Each layer's weight and bias in a flat buffer laid out as `values`, by the names that a
        `torch.nn.Sequential` with ReLUs gives them."""
        found, at = {}, 0
        for part, sizes in zip(("encoder", "decoder"), self.sizes, strict=True):
            for number, (inputs, outputs) in enumerate(pairwise(sizes)):
                end = at + inputs * outputs
                found[f"{part}.{2 * number}.weight"] = values[at:end].reshape(inputs, outputs).T
                found[f"{part}.{2 * number}.bias"] = values[end : end + outputs]
                at = end + outputs
        return found

    def named_values(self) -> dict[str, np.ndarray]:
        """Copies of the values, by name."""
        return {name: view.copy() for name, view in self.named.items()}

    def restore(self, values: Mapping[str, np.ndarray]) -> None:
        """Set the values from what `named_values` gave. Raises ValueError unless all fit."""
        if other := sorted(values.keys() ^ self.named.keys()):
            raise ValueError(f"missing or unknown: {', '.join(other)}")
        for name, view in self.named.items():
            value = values[name]
            if (value.shape, value.dtype) != (view.shape, view.dtype):
                raise ValueError(f"{name} should be {view.dtype} {view.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} is not finite")
            view[...] = value

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and log-variance, `(n, latent)`, of images `(n, 784)`, uint8 0 or 1."""
        expect(np.uint8, (len(images), self.pixels), images)
        posterior = np.empty((len(images), 2 * self.latent), np.float32)
        call("encode", self._net, images, len(images), posterior)
        mean, log_variance = np.split(posterior, 2, axis=1)
        return np.ascontiguousarray(mean), np.ascontiguousarray(log_variance)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Logits `(n, 784)` of a pixel being 1, from `latent`, `(n, latent)`."""
        expect(np.float32, (len(latent), self.latent), latent)
        logits = np.empty((len(latent), self.pixels), np.float32)
        call("decode", self._net, latent, len(latent), logits)
        return logits


def _make_net(
    owner: object, network: Network, room: int, gradients: np.ndarray | None = None
) -> int:
    """Make the library's own part of a model, with room for the activations of so many images.

    It is freed with its owner, which keeps the values and the gradients that it points to.
    """
    encoder, decoder = network.sizes
    sizes = np.array(encoder + decoder, np.int64)
    layers = len(encoder) - 1, len(decoder) - 1
    pointer = call("make_net", sizes, *layers, room, network.values, gradients)
    if not pointer:
        raise MemoryError(f"no memory for {room} images in layers of {encoder} and {decoder}")
    weakref.finalize(owner, call, "free_net", pointer)
    return pointer


class Trainer:
    """Trains a network by Adam (Kingma and Ba, 2015) in the "epsilon hat" form at the end of its
    section 2, with at most `most` images in a batch.

    `network.values`, `first`, `second` (flat float32) and `steps` are all that the next step
    depends on: copy them out to keep a state, and into them to go on from it. `gradients` is laid
    out as `values`.
    """

    def __init__(self, network: Network, most: int, settings: Train) -> None:
        self.network, self.most, self.steps = network, most, 0
        of_adam = settings.learning_rate, *settings.adam_betas, settings.adam_epsilon
        self.of_adam = [ctypes.c_double(value) for value in of_adam]
        self.beta = ctypes.c_double(settings.beta)
        self.gradients, self.first, self.second = (buffer(network.values.size) for _ in range(3))
        self._net = _make_net(self, network, most, self.gradients)

    def gradient(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Set `gradients` to those of the summed reconstruction + `beta` KL of `images[rows]`.

        `images` `(n, 784)` uint8 0 or 1, `rows` `(batch,)` int64, `noise` `(batch, latent)`
        float32, one posterior sample each. Returns reconstruction and KL, `(2, batch)` float64,
        nats per image; what overflowed is not finite there.
        """
        count = len(rows)
        if not 0 < count <= self.most:
            raise ValueError(f"a batch of {count} images; at most {self.most} were announced")
        expect(np.uint8, (len(images), self.network.pixels), images)
        expect(np.int64, (count,), rows)
        expect(np.float32, (count, self.network.latent), noise)
        terms = np.empty((2, count))
        call("gradient", self._net, images, rows, count, noise, self.beta, terms)
        return terms

    def step(self, images: np.ndarray, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Set `gradients` and update the values by them; arguments and terms as in `gradient`."""
        terms = self.gradient(images, rows, noise)
        self.steps += 1
        buffers = self.network.values, self.gradients, self.first, self.second
        call("adam", *buffers, self.first.size, self.steps, *self.of_adam)
        return terms

    def write_back(self) -> None:
        """Do nothing: the steps change the network's own values."""

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on, the values included."""
        copies = {name: values.copy() for name, values in self._buffers().items()}
        return {**copies, "steps": np.array(self.steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        for name, values in self._buffers().items():
            values[...] = state[name]
        self.steps = int(state["steps"])

    def _buffers(self) -> dict[str, np.ndarray]:
        return {"values": self.network.values, "first": self.first, "second": self.second}
