import re
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from pandas import json_normalize
from ruamel.yaml import YAML

from conftest import ROOT
from vae.cli import UserError
from vae.params import check_params, read_params
from vae.typed_yaml import Group

COMMITTED = (ROOT / "params.yaml").read_text()
VALUES = YAML(typ="safe").load(COMMITTED)

# What is changed in the committed file, and what the message must say.
MISTAKES = [
    ("epochs: 10", "epochs: 0", "train.epochs is 0; it should be greater than or equal to 1"),
    ("epochs: 10", "epoch: 10", "train.epoch is an unknown key; did you mean epochs?"),
    ("epochs: 10", "", "train.epochs is missing"),
    ("learning_rate: 0.001", "learning_rate: '1e-3'", "is '1e-3'; it should be a valid number"),
    ("learning_rate: 0.001", "learning_rate: .nan", "is nan; it should be a finite number"),
    ("device: cpu", "device: gpu", "train.device is 'gpu'; it should be 'cpu' or 'cuda'"),
    ("latent_size: 2\n", "latent_size: 3\n", "train-2d.latent_size is 3; it should be 2"),
    ("  - 0.05\n", "  - 0.97\n", "the first must be below the second"),
    ("seed: 199", "seed: 199\nseed: 200", "found duplicate key \"seed\""),
    ("epochs: 10", "epochs: " + 5000 * "9", "is not valid YAML: Exceeds the limit"),
    ("epochs: 10", "epochs: !!bool 3", "is not valid YAML: '3'"),
    ("epochs: 10", "epochs: !!python/object:os.system x", "could not determine a constructor"),
    ("epochs: 10", "epochs: &a [*a]", "train.epochs is [[...]]; it should be a valid integer"),
    ("epochs: 10", 'epochs: 10\n  "two\\nlines": 1', "train.two lines is an unknown key"),
    ("epochs: 10", "epochs: 10\n  3: 4", "train.3 is an unknown key; allowed: epochs"),
    ("milliseconds: 50}", "milliseconds: 55}", "milliseconds is 55; it should be a multiple of 10"),
    ("vae-mnist", 251 * "x", "it should have at most 250 characters"),
    (COMMITTED, "", "the file is None; it should be a valid dictionary"),
    (COMMITTED, 500 * "[", "is not valid YAML: maximum recursion depth exceeded"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_names_key_value_and_what_is_allowed(tmp_path, old, new, message):
    assert old in COMMITTED
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        check_params(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_number_in_scientific_notation_reads_as_dvc_reads_it(tmp_path, params):
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert check_params(path) == params


@pytest.mark.parametrize("typed", ["data/own/mine/", "./data/own/mine", "data//own/mine"])
def test_a_path_of_custom_data_may_be_typed_variously(typed):
    change = {"download.dataset": typed}
    assert check_params(ROOT / "params.yaml", change).download.dataset == "data/own/mine"


def test_the_committed_values_are_the_posts_and_frozen(params):
    assert (params.seed, params.train.epochs, params.train.batch_size) == (199, 10, 128)
    assert params.train.learning_rate == 0.001
    assert (params.train_20d.hidden_sizes, params.train_20d.latent_size) == ((400,), 20)
    assert (params.train_2d.hidden_sizes, params.train_2d.latent_size) == ((400, 150), 2)
    assert params.figures.images == (1, 4, 12, 15, 22)
    assert read_params("train", "seed", path=ROOT / "params.yaml") == [params.train, 199]
    with pytest.raises(ValueError, match="frozen"):
        params.train.epochs = 3


LIMITS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
TEXT = strategies.text(strategies.characters(exclude_categories=("Cs", "Cc")), max_size=20)
ANYTHING = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | TEXT,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(TEXT, inner),
    max_leaves=5,
)


@settings(max_examples=150, **LIMITS)
@given(key=strategies.sampled_from([*VALUES, *json_normalize(VALUES)]), value=ANYTHING)
def test_any_value_is_accepted_or_refused_by_its_key(key, value):
    try:
        params = check_params(ROOT / "params.yaml", {key: value})
        taken = attrgetter(key.replace("-", "_"))(params)
        expected = tuple(value) if isinstance(value, list) else value
        assert isinstance(taken, Group) or taken == expected
    except UserError as error:
        assert key in str(error)
        assert "\n" not in str(error)


@settings(max_examples=100, **LIMITS)
@given(
    start=strategies.integers(0, len(COMMITTED)),
    length=strategies.integers(0, 40),
    text=strategies.text("abc: -[]{}'\"\n\t#&*!|>%@?,0189.~\\", max_size=20),
)
def test_any_text_is_accepted_or_refused_in_one_line(tmp_path, start, length, text):
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED[:start] + text + COMMITTED[start + length :])
    try:
        check_params(path)
    except UserError as error:
        assert "\n" not in str(error)


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"seed: \xe9")
    with pytest.raises(UserError, match="unexpected end of data"):
        check_params(tmp_path / "params.yaml")
    with pytest.raises(UserError, match=f"in {re.escape(str(Path.cwd()))}: .* repository's root"):
        check_params(tmp_path / "other.yaml")
