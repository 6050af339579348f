"""Which models the report's page can run: those that it computes as PyTorch does."""

import numpy as np
import pytest
import torch
from torch import nn

import exact
from vae.model import VAE, BernoulliVAE
from vae.report.play import playable_models

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


class Named(VAE):
    """The post's model with other names."""

    def __init__(self):
        super().__init__()
        self.down, self.up = post().encoder, post().decoder

    def encode(self, images):
        return self.down(images)

    def decode(self, z):
        return self.up(z)


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


@pytest.mark.parametrize(
    "model",
    [with_tanh(), convolutional(), Named().eval().requires_grad_(False)],
    ids=["tanh", "convolutional", "other names"],
)
def test_a_page_cannot_play_other_models(model):
    assert playable_models({"20d": post(), "2d": model}, IMAGES) is None
