import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file as load
from safetensors.torch import save

from conftest import bits, model_of
from vae.cli import UserError
from vae.model import build_model, load_model, reparameterize, save_model
from vae.params import Architecture


def sizes(layers) -> list[tuple[int, ...]]:
    return [layer.weight.shape[::-1] for layer in layers if isinstance(layer, torch.nn.Linear)]


def test_the_committed_models_have_the_posts_layers(params):
    model = build_model(params.train_20d)
    # The last one gives the posterior's mean and log-variance.
    assert sizes(model.encoder) == [(784, 400), (400, 2 * 20)]
    assert sizes(model.decoder) == [(20, 400), (400, 784)]
    model = build_model(params.train_2d)
    assert sizes(model.encoder) == [(784, 400), (400, 150), (150, 2 * 2)]
    assert sizes(model.decoder) == [(2, 150), (150, 400), (400, 784)]


@pytest.mark.parametrize(
    ("hidden", "decoder", "expected"),
    [
        ((), None, [(3, 784)]),
        ((9, 8, 7), None, [(3, 7), (7, 8), (8, 9), (9, 784)]),
        ((9, 8), (5,), [(3, 5), (5, 784)]),
        ((9,), (), [(3, 784)]),
    ],
)
def test_the_decoder_mirrors_the_encoder_unless_its_sizes_are_given(hidden, decoder, expected):
    architecture = Architecture(hidden_sizes=hidden, latent_size=3, decoder_hidden_sizes=decoder)
    assert sizes(build_model(architecture).decoder) == expected


def test_a_saved_model_computes_the_same_and_its_bytes_repeat(tmp_path, small, images):
    model = model_of(small)
    for name in ("a", "b"):
        save_model(model, small, tmp_path / f"{name}.safetensors")
    again = load_model(tmp_path / "a.safetensors")
    assert not any(value.requires_grad for value in again.parameters())
    x, noise = torch.from_numpy(images), torch.ones(100, 2)
    assert bits(*again(x, noise)) == bits(*model(x, noise))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_calling_a_model_encodes_samples_and_decodes(small, images):
    model, noise = model_of(small), torch.ones(100, 2)
    logits, kl = model(torch.from_numpy(images), noise)
    z, expected = reparameterize(model.encode(torch.from_numpy(images)), noise)
    assert torch.equal(logits, model.decode(z))
    assert torch.equal(kl, expected)


def test_the_weights_fit_a_plain_pytorch_module(tmp_path, small, images):
    """Of torch.nn.Linear and ReLU, as who downloads a model file may build it."""
    model = model_of(small)
    save_model(model, small, tmp_path / "a.safetensors")
    linear, relu = torch.nn.Linear, torch.nn.ReLU()
    encoder = torch.nn.Sequential(linear(784, 16), relu, linear(16, 8), relu, linear(8, 4))
    plain = torch.nn.ModuleDict({"encoder": encoder})
    plain.load_state_dict(load(tmp_path / "a.safetensors"), strict=False)
    x = torch.from_numpy(images)
    torch.testing.assert_close(encoder(x.float()), model.encode(x), rtol=1e-4, atol=1e-5)


NETWORKS = """
import torch
from vae.model import BernoulliVAE, VAE

class Good(BernoulliVAE):
    pass

Plain = torch.nn.Identity

class NoLatent(VAE):
    def __init__(self, pixels):
        super().__init__()

class Wide(BernoulliVAE):
    def decode(self, z):
        return super().decode(z)[:, :700]

class Double(BernoulliVAE):
    def decode(self, z):
        return super().decode(z).double()

class Pair(BernoulliVAE):
    def encode(self, images):
        return super().encode(images).chunk(2, dim=1)
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A module networks.own, as if it lay in src/networks."""
    (tmp_path / "own.py").write_text(NETWORKS)
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.setattr("networks.__path__", [str(tmp_path)])
    yield
    for name in ("own", "broken"):
        sys.modules.pop(f"networks.{name}", None)


def own(name: str, **more) -> Architecture:
    return Architecture(network=f"networks.{name}", hidden_sizes=(8,), latent_size=2, **more)


def test_a_class_in_networks_makes_the_model(networks, tmp_path):
    for architecture in (own("own.Good"), own("own.Good", decoder_hidden_sizes=(5,))):
        model = build_model(architecture)
        assert type(model).__name__ == "Good"
        assert model.training
        save_model(model, architecture, tmp_path / "own.safetensors")
        assert type(load_model(tmp_path / "own.safetensors")).__name__ == "Good"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing.Good", "No module named 'networks.nothing'"),
        ("broken.Good", "SyntaxError"),
        ("own.Nothing", "has no attribute 'Nothing'"),
        ("own.Plain", "not a subclass of vae.model.VAE"),
        ("own.NoLatent", "positional argument"),
        ("own.Wide", r"decode returns for 2 images is torch.float32 \(2, 700\)"),
        ("own.Double", "decode returns for 2 images is torch.float64"),
        ("own.Pair", "encode returns for 2 images is tuple"),
    ],
)
def test_a_network_that_cannot_be_used_is_one_line(networks, name, reason):
    with pytest.raises(UserError, match=reason) as caught:
        build_model(own(name))
    assert str(caught.value).startswith(f"params.yaml: network networks.{name} cannot be used (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["os.system", "vae.model.VAE", "networks.own", "networks", ""])
def test_a_network_elsewhere_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=r"networks\.FILE\.CLASS"):
        Architecture(network=name, hidden_sizes=(8,), latent_size=2)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a model file was unpickled",))


def changed(**values):
    """The damage of a model file that these values replace or join."""
    return lambda path: path.write_bytes(save({**load(path), **values}))


def described(text: str):
    return lambda path: path.with_suffix(".json").write_text(text)


BIAS = torch.zeros(784)
GONE = '{"network": "networks.gone.Own", "hidden_sizes": [], "latent_size": 2}'
DAMAGES = {
    "missing": lambda path: path.unlink(),
    "a pickle": lambda path: torch.save(Evil(), path),
    "another size": changed(**{"decoder.0.bias": torch.zeros(9)}),
    "another name": changed(weights=BIAS),
    "float64": changed(**{"decoder.4.bias": BIAS.double()}),
    "float8_e4m3fn": changed(**{"decoder.4.bias": BIAS.to(torch.float8_e4m3fn)}),
    "NaN": changed(**{"decoder.4.bias": BIAS / 0}),
    "infinite": changed(**{"decoder.4.bias": (BIAS + 1) / 0}),
    "an endless header": lambda path: path.write_bytes((2**62).to_bytes(8, "little")),
    "no description": lambda path: path.with_suffix(".json").unlink(),
    "an empty description": described("{}"),
    "a network that is gone": described(GONE),
    "a deep description": described(100_000 * "["),
    "an enormous model": described('{"hidden_sizes": [100000, 100000], "latent_size": 2}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unusable_model_is_refused_in_one_line(tmp_path, small, damage):
    path = tmp_path / "model.safetensors"
    save_model(model_of(small), small, path)
    DAMAGES[damage](path)
    with pytest.raises(UserError, match=r"cannot read the model|networks.gone.Own") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(st.sampled_from([".safetensors", ".json"]), st.floats(0, 1), st.binary(max_size=8))
def test_a_damaged_model_is_read_or_refused_in_one_line(tmp_path, suffix, place, others):
    path = tmp_path / "model.safetensors"
    architecture = Architecture(hidden_sizes=(), latent_size=1)
    save_model(model_of(architecture), architecture, path)
    content = path.with_suffix(suffix).read_bytes()
    start = int(place * min(len(content), 600))
    path.with_suffix(suffix).write_bytes(content[:start] + others + content[start + 4 :])
    try:
        load_model(path)
    except UserError as error:
        assert "\n" not in str(error)
