"""A trained network's files: weights as safetensors, the architecture in a JSON beside them."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from vae.cli import UserError, one_line
from vae.files import NO_TYPE, write_json, write_tensors
from vae.network import Network
from vae.params import Architecture


def save_network(network: Network, architecture: Architecture, path: Path) -> None:
    """Write the weights to `path` under PyTorch's names, and the architecture beside it."""
    write_tensors(path, network.named_values())
    write_json(path.with_suffix(".json"), architecture.model_dump(exclude={"preceded_by"}))


def load_network(path: Path, latent: int | None = None) -> Network:
    """Read what `save_network` wrote. Raises UserError if a file is missing, damaged or unfit, or
    if the model has not so many `latent` dimensions."""
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        architecture = Architecture.model_validate(description)
        if latent not in (None, architecture.latent_size):
            raise ValueError(f"it has {architecture.latent_size} latent dimensions, not {latent}")
        network = Network(architecture.encoder_sizes, architecture.decoder_sizes)
        network.restore(load_file(path))
    except (OSError, ValueError, RecursionError, SafetensorError, MemoryError, *NO_TYPE) as error:
        reason = one_line(error)
        raise UserError(f"cannot read the model {path} ({reason}); run `dvc repro`") from None
    return network
