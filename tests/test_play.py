"""Which models the report's page can run: those that it computes as PyTorch does."""

from base64 import b64decode

import numpy as np
import pytest
import torch
from torch import nn

import exact
from vae.model import VAE, BernoulliVAE
from vae.report.play import packed_layer, playable_models

IMAGES = np.random.default_rng(0).integers(0, 2, (20, 784), dtype=np.uint8)


def post() -> BernoulliVAE:
    torch.manual_seed(0)
    return BernoulliVAE(784, [16, 8], 2).eval().requires_grad_(False)


def with_tanh() -> VAE:
    model = post()
    model.encoder[1] = nn.Tanh()
    return model


def convolutional() -> VAE:
    model = post()
    layers = nn.Unflatten(1, (1, 28, 28)), exact.nn.Conv2d(1, 2, 4, 2, 1), nn.Flatten()
    model.encoder = nn.Sequential(*layers, nn.ReLU(), exact.nn.Linear(392, 4))
    return model.requires_grad_(False)


def with_other_names() -> VAE:
    """The post's model without `encoder` and `decoder`."""
    model, whole = VAE(), post()
    model.encode, model.decode = whole.encode, whole.decode
    return model


def test_the_posts_models_can_be_played():
    found = playable_models({"20d": post(), "2d": post()}, IMAGES)
    assert [len(model["layers"]) for model in found.values()] == [6, 6]
    assert [(model["latent"], model["encoders"]) for model in found.values()] == [(2, 3)] * 2


def test_fused_relus_and_dropout_change_nothing():
    model = post()
    model.encoder = nn.Sequential(*(layer for layer in model.encoder if type(layer) is not nn.ReLU))
    for layer in model.encoder[:-1]:
        layer.relu = True
    model.decoder.append(nn.Dropout())
    assert playable_models({"2d": model.eval()}, IMAGES)


@pytest.mark.parametrize("other", [with_tanh, convolutional, with_other_names])
def test_a_page_cannot_play_other_models(other):
    assert playable_models({"20d": post(), "2d": other()}, IMAGES) is None


def test_weights_are_rounded_to_16_bits():
    layer = post().encoder[0]
    packed = {name: b64decode(part) for name, part in packed_layer(layer).items()}
    steps = np.frombuffer(packed["steps"], "<f4")[:, None]
    rounded = np.frombuffer(packed["weights"], "<i2").reshape(784, -1) * steps
    assert np.all(np.abs(rounded - layer.weight.numpy().T) <= 0.51 * steps)
    assert np.array_equal(np.frombuffer(packed["bias"], "<f4"), layer.bias)
