import re
from pathlib import Path

import pytest

from conftest import ROOT
from vae.errors import UserError
from vae.params import check_params, read_params

COMMITTED = (ROOT / "params.yaml").read_text()

# What is changed in the committed file, and what the message must say.
MISTAKES = [
    ("epochs: 10", "epochs: ten", "train.epochs is 'ten'; it should be a valid integer"),
    ("epochs: 10", "epochs: 0", "train.epochs is 0; it should be greater than or equal to 1"),
    ("epochs: 10", "epochs: 2.5", "train.epochs is 2.5; it should be a valid integer"),
    ("epochs: 10", "epochs: true", "train.epochs is True; it should be a valid integer"),
    ("epochs: 10", "epoch: 10", "train.epoch is an unknown key; did you mean epochs?"),
    ("epochs: 10", "", "train.epochs is missing"),
    ("learning_rate: 0.001", "learning_rate: '1e-3'", "is '1e-3'; it should be a valid number"),
    ("learning_rate: 0.001", "learning_rate: .nan", "is nan; it should be a finite number"),
    ("learning_rate: 0.001", "learning_rate: -1", "train.learning_rate is -1; it should be greater than 0"),
    ("device: auto", "device: gpu", "train.device is 'gpu'; it should be 'auto', 'cpu' or 'cuda'"),
    ("hidden_sizes: [400, 150]", "hidden_sizes: 400", "hidden_sizes is 400; it should be a valid list"),
    ("hidden_sizes: [400, 150]", "hidden_sizes: [0]", "train-2d.hidden_sizes.0 is 0"),
    ("latent_size: 2\n", "latent_size: 3\n", "train-2d.latent_size is 3; it should be 2"),
    ("  preceded_by", "  precededby", "train-2d.precededby is an unknown key; did you mean preceded_by?"),
    ("[0.05, 0.95]", "[0.95, 0.05]", "the first of grid_quantiles must be below the second"),
    ("enabled: true", "enabled: 1", "tracking.enabled is 1; it should be a valid boolean"),
    ("seed: 199", "seed: 199\nseed: 200", "found duplicate key \"seed\""),
    ("seed: 199", "seed: 199: 200", "is not valid YAML"),
    ("threshold: 128", "threshold: 256", "binarize.threshold is 256; it should be less than or equal to 255"),
    (COMMITTED, "", "the file is None; it should hold keys and values"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_told_by_key_value_and_what_is_allowed(tmp_path, old, new, message):
    assert old in COMMITTED
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        check_params(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_number_in_scientific_notation_reads_as_dvc_reads_it(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert check_params(path).train.learning_rate == 0.001


def test_the_committed_values_are_the_posts(params):
    assert (params.seed, params.train.epochs, params.train.batch_size) == (199, 10, 128)
    assert params.train.learning_rate == 0.001
    assert (params.train_20d.hidden_sizes, params.train_20d.latent_size) == ((400,), 20)
    assert (params.train_2d.hidden_sizes, params.train_2d.latent_size) == ((400, 150), 2)
    assert params.figures.images == (1, 4, 12, 15, 22)


def test_groups_come_in_the_order_asked_for_and_cannot_be_changed():
    seed, train = read_params("seed", "train", path=ROOT / "params.yaml")
    assert seed == 199
    with pytest.raises(ValueError, match="frozen"):
        train.epochs = 3


def test_a_missing_file_names_the_folder(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"in {Path.cwd()}: run from the repository's root")):
        check_params(tmp_path / "params.yaml")
