import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from vae.cli import UserError
from vae.files import records
from vae.params import Binarize
from vae.reproduction.intervals import load_study
from vae.reproduction.published import compare_losses, load_published
from vae.reproduction.verdicts import judge

OF_MNIST = "mnist", Binarize(mode="threshold", threshold=128)
STUDY = (ROOT / "studies/seeds.csv").read_text().splitlines(keepends=True)


@pytest.fixture
def published():
    return load_published(ROOT / "data/published", *OF_MNIST).losses


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of data/published."""
    return shutil.copytree(ROOT / "data/published", tmp_path / "published")


def runs(published, epochs: int) -> dict[str, pd.DataFrame]:
    """A run of each model whose losses are a hundredth above the post's."""
    post = published[(published["source"] == "post") & (published["split"] != "noise")]
    tables = post.pivot(index=["model", "epoch"], columns="split", values="published") + 0.01
    losses = tables.add_suffix("_loss").reset_index()
    return {model: of_model[:epochs] for model, of_model in losses.groupby("model")}


def test_every_published_loss_stands_beside_ours(published):
    values = compare_losses(runs(published, 10), 51.773, published)
    assert len(values) == 81
    of_post = values[values["source"] == "post"].set_index(["model", "split", "epoch"])
    assert of_post["difference"].tolist() == pytest.approx([0.01] * 41)
    last = of_post["published"].xs(10, level="epoch").to_dict()
    assert last == {
        ("20d", "train"): 87.911918,
        ("20d", "test"): 87.646744,
        ("2d", "train"): 138.443796,
        ("2d", "test"): 140.24413,
    }


def test_an_epoch_that_the_run_does_not_have_is_null(published):
    values = compare_losses(runs(published, 2), 50.0, published)
    rows = records(judge(values, load_study(ROOT / "studies/seeds.csv")[1]))
    assert [row["ours"] is None for row in rows] == [row["epoch"] > 2 for row in rows]
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has 0 seeds"),
        ("".join(line for line in STUDY if ",defaults,0," not in line), "has 19 seeds of the 20d"),
        ("".join(STUDY).replace("arm", "branch"), "has no column arm"),
        ("".join(STUDY[:5]) + "1,2,3\n" + "1,2," * 20 + "\n", "Expected"),
        ("\0" * 100 + "\n", "is not a study's table"),
    ],
)
def test_a_study_that_cannot_judge_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "seeds.csv").write_text(content)
    with pytest.raises(UserError, match=rf"seeds\.csv .*{message}") as caught:
        load_study(tmp_path / "seeds.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    place=st.floats(0, 1),
    fewer=st.integers(0, 8),
    more=st.sampled_from(["inf", "1e999", ","]) | st.text("0189.-+einfa,\"'\n\r\0 ", max_size=8),
)
def test_a_changed_table_is_read_or_refused_in_one_line(folder, place, fewer, more):
    path = folder / "post-20d.csv"
    text = (ROOT / "data/published/post-20d.csv").read_text()
    start = int(place * len(text))
    path.write_text(text[:start] + more + text[start + fewer :])
    try:
        found = load_published(folder, *OF_MNIST).losses
        assert len(found) == 81
        assert np.isfinite(found["published"]).all()
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data", [("fashion-mnist", OF_MNIST[1]), ("mnist", Binarize(mode="sample", threshold=128))]
)
def test_numbers_of_other_data_are_not_compared(data):
    index, losses = load_published(ROOT / "data/published", *data)
    assert losses.empty
    assert index.noise_kl is index.earlier_training is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: 20d", "model: 3d", r"tables\.yaml: tables\.0\.model is '3d'; it should be '20d'"),
        ("epochs: 10", "epochs: 9", r"post-20d\.csv should have one row per epoch, 1 to 9"),
        ("post-20d.csv", "gone.csv", r"cannot read the losses of .*gone\.csv"),
    ],
)
def test_a_mistake_in_tables_yaml_is_named(folder, old, new, message):
    path = folder / "tables.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_published(folder, *OF_MNIST)
