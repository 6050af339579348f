import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file as load
from safetensors.torch import save

from conftest import network_of
from vae.cli import UserError
from vae.model import BernoulliVAE, load_model
from vae.params import Architecture
from vae.weights import load_network, save_network


def module(architecture: Architecture) -> BernoulliVAE:
    return BernoulliVAE(architecture.encoder_sizes, architecture.decoder_sizes)


def sizes(layers) -> list[tuple[int, int]]:
    return [
        (layer.in_features, layer.out_features)
        for layer in layers
        if isinstance(layer, torch.nn.Linear)
    ]


def test_the_committed_models_have_the_posts_layers(params):
    model = module(params.train_20d)
    # The last one gives the posterior's mean and log-variance.
    assert sizes(model.encoder) == [(784, 400), (400, 2 * 20)]
    assert sizes(model.decoder) == [(20, 400), (400, 784)]
    model = module(params.train_2d)
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
    model = module(Architecture(hidden_sizes=hidden, latent_size=3, decoder_hidden_sizes=decoder))
    assert sizes(model.decoder) == expected


def test_a_saved_network_decodes_the_same_after_loading_and_its_bytes_repeat(tmp_path, small):
    network = network_of(small)
    for name in ("a", "b"):
        save_network(network, small, tmp_path / f"{name}.safetensors")
    latent = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    again = load_network(tmp_path / "a.safetensors")
    assert (again.decode(latent) == network.decode(latent)).all()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_as_a_module_it_is_the_same_model(tmp_path, small, images):
    save_network(network_of(small), small, tmp_path / "a.safetensors")
    network = load_network(tmp_path / "a.safetensors")
    model = load_model(tmp_path / "a.safetensors")
    posterior = model.encode(torch.from_numpy(images).float())
    for ours, theirs in zip(network.encode(images), posterior, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
    logits = model.decode(posterior.mean).numpy()
    np.testing.assert_allclose(
        network.decode(network.encode(images)[0]), logits, rtol=1e-4, atol=1e-5
    )


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a model file was unpickled",))


@pytest.mark.parametrize(
    "damage",
    ["missing", "truncated", "pickle", "torch", "sizes", "names", "empty", "header", "loop",
     "float16", "float64", "bfloat16", "float8_e4m3fn", "NaN", "infinite", "no description",
     "description", "deep description", "enormous description"],
)  # fmt: skip
def test_a_model_that_cannot_be_used_is_refused_in_one_line(tmp_path, small, damage):
    path = tmp_path / "model.safetensors"
    save_network(network_of(small), small, path)
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-10])
        case "pickle":
            path.write_bytes(pickle.dumps(Evil()))
        case "sizes":
            other = Architecture(hidden_sizes=(17, 8), latent_size=2)
            save_network(network_of(other), small, path)
        case "torch":
            torch.save(Evil(), path)
        case "names":
            path.write_bytes(save({"weights": torch.zeros(3)}))
        case "float16" | "float64" | "bfloat16" | "float8_e4m3fn":
            other = {name: value.to(getattr(torch, damage)) for name, value in load(path).items()}
            path.write_bytes(save(other))
        case "NaN" | "infinite":
            values = load(path)
            values["decoder.0.bias"][0] = torch.nan if damage == "NaN" else torch.inf
            path.write_bytes(save(values))
        case "empty":
            path.write_bytes(b"")
        case "header":
            path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes())
        case "loop":
            path.unlink()
            path.symlink_to(path)
        case "no description":
            path.with_suffix(".json").unlink()
        case "description":
            path.with_suffix(".json").write_text("{}")
        case "deep description":
            path.with_suffix(".json").write_text(100_000 * "[")
        case "enormous description":
            path.with_suffix(".json").write_text(
                '{"hidden_sizes": [100000, 100000], "latent_size": 2}'
            )
    with pytest.raises(UserError, match="cannot read the model") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    suffix=st.sampled_from([".safetensors", ".json"]),
    place=st.floats(0, 1),
    others=st.binary(max_size=8),
)
def test_a_model_with_any_bytes_changed_is_read_or_refused_in_one_line(
    tmp_path, suffix, place, others
):
    path = tmp_path / "model.safetensors"
    architecture = Architecture(hidden_sizes=(), latent_size=1)
    save_network(network_of(architecture), architecture, path)
    content = path.with_suffix(suffix).read_bytes()
    start = int(place * min(len(content), 600))
    path.with_suffix(suffix).write_bytes(content[:start] + others + content[start + 4 :])
    try:
        load_network(path)
    except UserError as error:
        assert "\n" not in str(error)
