import pytest
import torch
from torch import nn

import contestants
import exact
from bench import ratio
from vae.data import load_split
from vae.params import Model
from work import Work

pytestmark = pytest.mark.usefixtures("restored_modes")


@pytest.fixture(scope="module")
def work(digits, params) -> Work:
    """A small model, and digits of 0 and 255, so that grey images are binary ones."""
    pixels = 255 * load_split(digits, "train").images.reshape(-1, 28, 28)
    settings = params.train.model_copy(update={"epochs": 1, "batch_size": 32, "device": "cpu"})
    return Work(
        pixels, pixels[:2], Model(hidden_sizes=(64, 32), latent_size=2), settings, params.figures
    )


@pytest.mark.parametrize("name", ["torch_kernels", "post", "examples", "kl_torch", "kl_post"])
def test_the_peers_in_torch_do_the_same_work(work, name):
    ours, tolerance = ("kl_ours", 1e-4) if name.startswith("kl_") else ("ours", 0.02)
    expected = getattr(contestants, ours)(work)()
    assert getattr(contestants, name)(work)() == pytest.approx(expected, rel=tolerance)


def test_the_peer_in_jax_does_the_same_work(work):
    reason = "JAX is the benchmark's only; make bench installs it"
    jax_peer = pytest.importorskip("jax_peer", reason=reason, exc_type=ImportError)
    model = contestants.fresh(work)[0]

    def pairs(part):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in layers]

    weights = {name: pairs(part) for name, part in model.named_children()}
    expected = contestants.ours(work)()
    assert jax_peer.jax_epoch(work, weights)() == pytest.approx(expected, rel=0.02)


def test_the_peers_start_from_the_authors_first_weights(work):
    ours, theirs = contestants.fresh(work)[0], contestants.plain(work)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert other.is_contiguous()
    assert not any(isinstance(layer, exact.nn.Linear) for layer in theirs.modules())


@pytest.mark.parametrize("name", ["linear", "mm", "best"])
def test_bare_products_of_an_epoch_run(work, name):
    assert getattr(contestants, name)(work)() is None


def test_a_ratio_is_the_median_of_the_rounds_own():
    assert ratio([1, 20, 3], [2, 10, 3]) == 1
