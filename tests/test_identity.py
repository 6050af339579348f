"""A training's identity, and the bits that it stands for."""

import hashlib

import numpy as np
import pytest

from conftest import bits
from test_training import begun
from vae.identity import RESULTS_VERSION, identity
from vae.params import Architecture, flat, training_params
from vae.training import fit

# The weights' MD5 by version and batch size: a change of the arithmetic raises the version and
# adds lines. Version 1: those of the C network that trained here before the layers did.
GOLDEN = {
    (1, 7): "e465f963b06e7a6bfb25496e5a3c3756",
    (1, 127): "7eb793bd6e8deb529e8b101ff6667ee4",
    (1, 129): "b1cdf6a90e4d3fde4ad7476a6692d47a",
}


@pytest.mark.parametrize("batch", [7, 127, 129])
def test_who_changes_the_bits_of_a_training_raises_results_version(params, batch):
    """Of three epochs of a deep network of odd sizes, with a last batch that is not full."""
    images = np.random.RandomState(0).randint(0, 2, (300, 784)).astype(np.uint8)
    settings = params.train.model_copy(update={"epochs": 3, "batch_size": batch})
    start = begun(Architecture(hidden_sizes=(1, 3, 17, 1500), latent_size=3), images, settings)
    list(fit(start, settings))
    found = hashlib.md5(bits(*start.model.parameters())).hexdigest()
    assert found == GOLDEN[RESULTS_VERSION, batch]


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
