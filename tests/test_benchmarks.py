import pytest
import torch
from torch import nn

import contestants
from vae.data import load_split
from vae.model import as_module
from vae.params import Model
from work import Work


@pytest.fixture(autouse=True)
def mode():
    """Leave to other tests the processor's mode for subnormal numbers, which a peer sets."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def work(digits, params) -> Work:
    """A small model, and digits of 0 and 255, so that grey images are binary ones."""
    pixels = 255 * load_split(digits, "train").images.reshape(-1, 28, 28)
    settings = params.train.model_copy(update={"epochs": 1, "batch_size": 32, "device": "cpu"})
    return Work(
        pixels, pixels[:2], Model(hidden_sizes=(64, 32), latent_size=2), settings, params.figures
    )


@pytest.mark.parametrize("name", ["torch_way", "post", "examples"])
def test_the_peers_in_torch_do_the_same_work_as_the_library(work, name):
    """An epoch from the same weights, in another order, ends at nearly the same training loss."""
    assert getattr(contestants, name)(work)() == pytest.approx(contestants.ours(work)(), rel=0.02)


def test_the_peer_in_jax_does_the_same_work_as_the_library(work):
    """As above."""
    reason = "JAX is the benchmark's only; make bench installs it"
    jax_peer = pytest.importorskip("jax_peer", reason=reason, exc_type=ImportError)
    model = as_module(contestants.fresh(work)[0])

    def pairs(part):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in layers]

    weights = {name: pairs(part) for name, part in model.named_children()}
    expected = contestants.ours(work)()
    assert jax_peer.jax_epoch(work, weights)() == pytest.approx(expected, rel=0.02)
