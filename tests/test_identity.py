"""A training's identity, and the bits that it stands for."""

import hashlib

import numpy as np
import pytest
import torch

from vae.identity import RESULTS_VERSION, identity
from vae.model import build_model
from vae.params import Architecture, flat, training_params
from vae.stream import RandomStream
from vae.training import Start, fit

# The weights' MD5 by version: a change of the arithmetic raises the version and adds a line.
GOLDEN = {1: "da6fa36bf56130bf1c493661135004bc"}


def tiny_training(params) -> str:
    """The MD5 of a small model's weights after two epochs of 100 random images."""
    settings = params.train.model_copy(update={"epochs": 2, "batch_size": 16})
    pixels = np.random.RandomState(0).randint(0, 2, (100, 784)).astype(np.uint8)
    images, stream = torch.from_numpy(pixels), RandomStream(1, 16, 2, 3)
    model = build_model(Architecture(hidden_sizes=(16, 8), latent_size=2))
    stream.initialise(model)
    list(fit(Start(model, 2, images, images[:30], stream), settings))
    values = [value.contiguous().numpy().tobytes() for value in model.state_dict().values()]
    return hashlib.md5(b"".join(values)).hexdigest()


def test_who_changes_the_bits_of_a_training_raises_results_version(params):
    assert tiny_training(params) == GOLDEN[RESULTS_VERSION]


@pytest.fixture
def values(params):
    return flat(training_params(params, "2d"))


def test_an_identity_follows_from_parameters_data_and_versions_alone(values, monkeypatch):
    first = identity(values, ["a", "b"])
    assert identity(dict(reversed(values.items())), ["a", "b"]) == first
    others = [identity({**values, "seed": "200"}, ["a", "b"]), identity(values, ["b", "a"])]
    monkeypatch.setattr("vae.identity.RESULTS_VERSION", RESULTS_VERSION + 1)
    others.append(identity(values, ["a", "b"]))
    monkeypatch.undo()
    monkeypatch.setattr("vae.identity.version", lambda name: "9.9.9")
    others.append(identity(values, ["a", "b"]))
    assert len({first, *others}) == 5


def test_the_build_of_one_version_of_torch_does_not_matter(values, monkeypatch):
    monkeypatch.setattr("vae.identity.version", lambda name: "2.15.0+cpu")
    on_cpu = identity(values, [])
    monkeypatch.setattr("vae.identity.version", lambda name: "2.15.0+cu130")
    assert identity(values, []) == on_cpu


def test_the_code_of_a_network_of_ones_own_counts(values, monkeypatch, tmp_path):
    file = tmp_path / "networks" / "own.py"
    file.parent.mkdir()
    monkeypatch.setattr("vae.identity.SRC", tmp_path)
    own, found = {**values, "model.network": "networks.own.VAE"}, []
    for code in ("one", "two"):
        file.write_text(code)
        found.append((identity(own, []), identity(values, [])))
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]
