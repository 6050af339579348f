"""The post's model: a variational autoencoder with a Bernoulli decoder.

An architecture of your own is a class like BernoulliVAE, in a file of src/networks: a subclass of
VAE, made of pixels, hidden sizes and latent size, with `encode` and `decode`.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import exact
from vae.cli import UserError, one_line
from vae.data import PIXELS
from vae.files import NO_TYPE, write_json, write_tensors
from vae.params import POST_NETWORK, Architecture

# What a damaged model file raises when it is read.
DAMAGED = OSError, ValueError, MemoryError, RuntimeError, SafetensorError


class VAE(nn.Module):
    """Base class of the models; a subclass defines `encode` and `decode`."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the posteriors q(z | x) of `images` `(batch, 784)`, as `vae.data.Split` has them:
        the mean beside the log-variance, `(batch, 2 latent)`."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Return logits `(batch, 784)` of a pixel being 1, from `z`, `(batch, latent)`."""
        raise NotImplementedError

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images `(batch, 784)`, sample z with standard normal `noise` `(batch, latent)`,
        and decode it. Returns logits `(batch, 784)` and the posteriors' KL, `(batch,)` nats."""
        z, kl = reparameterize(self.encode(images), noise)
        return self.decode(z), kl


def reparameterize(posterior: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sample z = mean + exp(log_variance / 2) noise, `(batch, latent)`, and the KL of the
    posterior to the prior, `(batch,)` nats. One function, since their gradients are one sum."""
    return exact.functional.gaussian_sample_and_kl(posterior, noise)


class PosteriorLayer(exact.nn.Linear):
    """The mean beside the log-variance: one product, where the author's notebook had two layers."""

    drawn_in_parts = 2


class VAEEncoder(exact.nn.Sequential):
    """Fully connected layers from pixels `(batch, 784)` to mean and log-variance, `(batch, 2
    latent)`."""

    def __init__(self, pixels: int, hidden_sizes: Sequence[int], latent_size: int) -> None:
        sizes = (pixels, *hidden_sizes)
        super().__init__(*hidden_layers(sizes), PosteriorLayer(sizes[-1], 2 * latent_size))


class BernoulliVAEDecoder(exact.nn.Sequential):
    """Fully connected layers from z `(batch, latent)` to the pixels' logits `(batch, 784)`."""

    def __init__(self, pixels: int, hidden_sizes: Sequence[int], latent_size: int) -> None:
        sizes = (latent_size, *hidden_sizes)
        super().__init__(*hidden_layers(sizes), exact.nn.Linear(sizes[-1], pixels))


def hidden_layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Make a linear layer and a ReLU for each pair of sizes."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [exact.nn.Linear(inputs, outputs), nn.ReLU()]
    return layers


class BernoulliVAE(VAE):
    """The post's VAE; the decoder mirrors the encoder unless its hidden sizes are given."""

    def __init__(
        self,
        pixels: int,
        hidden_sizes: Sequence[int],
        latent_size: int,
        decoder_hidden_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if decoder_hidden_sizes is None:
            decoder_hidden_sizes = hidden_sizes[::-1]
        self.encoder = VAEEncoder(pixels, hidden_sizes, latent_size)
        self.decoder = BernoulliVAEDecoder(pixels, decoder_hidden_sizes, latent_size)

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def build_model(architecture: Architecture) -> VAE:
    """Make the model of the class that `architecture.network` names. Raises UserError where there
    is none, or where it makes no VAE of these sizes."""
    name, latent = architecture.network, architecture.latent_size
    module, _, attribute = name.rpartition(".")
    sizes = [PIXELS, architecture.hidden_sizes, latent]
    # Given only where it is set: a class need not have it.
    if architecture.decoder_hidden_sizes is not None:
        sizes.append(architecture.decoder_hidden_sizes)
    try:
        model = getattr(importlib.import_module(module), attribute)(*sizes)
        if name != POST_NETWORK:
            check_model(model, latent)
    except MemoryError:
        raise
    except Exception as error:  # the user's own code may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"params.yaml: network {name} cannot be used ({reason}); it should be a subclass of "
            "vae.model.VAE, made of pixels, hidden_sizes and latent_size, with encode and decode"
        ) from None
    return model


@torch.no_grad()
def check_model(model: VAE, latent: int) -> None:
    """Raise TypeError or ValueError unless a model encodes and decodes two images as `VAE` says."""
    if not isinstance(model, VAE):
        raise TypeError("it is not a subclass of vae.model.VAE")
    posterior = model.eval().encode(torch.zeros(2, PIXELS, dtype=torch.uint8))
    logits = model.decode(torch.zeros(2, latent))
    for name, values, size in (("encode", posterior, 2 * latent), ("decode", logits, PIXELS)):
        found, right = type(values).__name__, f"torch.float32 {(2, size)}"
        if isinstance(values, Tensor):
            found = f"{values.dtype} {tuple(values.shape)}"
        if found != right:
            raise ValueError(f"what {name} returns for 2 images is {found}; it should be {right}")
    model.train()


def save_model(model: VAE, architecture: Architecture, path: Path) -> None:
    """Write the weights to `path` as safetensors, and the architecture as JSON beside it."""
    arrays = {name: value.cpu().contiguous().numpy() for name, value in model.state_dict().items()}
    write_tensors(path, arrays)
    write_json(path.with_suffix(".json"), architecture.model_dump(exclude={"preceded_by"}))


def load_model(path: Path, latent_size: int | None = None) -> VAE:
    """Read what `save_model` wrote, for evaluation: no parameter requires a gradient. Raises
    UserError if a file is missing or damaged, or if the model has a different latent size."""
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        architecture = Architecture.model_validate(description)
        if latent_size not in (None, found := architecture.latent_size):
            raise ValueError(f"its latent size is {found}; it should be {latent_size}")
        values = load_file(path)
        with torch.device("meta"):  # takes no memory, however large the sizes are
            expect_like(build_model(architecture).state_dict(), values)
        model = build_model(architecture)
        model.load_state_dict(values)
    except (*DAMAGED, *NO_TYPE) as error:
        reason = one_line(error)
        raise UserError(f"cannot read the model {path} ({reason}); run `dvc repro`") from None
    return model.eval().requires_grad_(False)


def expect_like(expected: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless there is a finite value for each expected one, of its type and
    shape."""
    if other := sorted(values.keys() ^ expected.keys()):
        raise ValueError(f"missing or unknown: {', '.join(other)}")
    for name, like in expected.items():
        value = values[name]
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{name} should be {like.dtype} {tuple(like.shape)}")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} is not finite")
