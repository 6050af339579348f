import json

import pandas as pd
import pytest

import report
from conftest import ROOT
from vae.errors import UserError
from vae.reproduction import compare_losses, load_losses, load_published
from vae.verdicts import judge, load_intervals


@pytest.fixture
def published():
    return load_published(ROOT / "data/published")


def runs(published, epochs: int) -> dict[str, pd.DataFrame]:
    """A run of each model that came out a hundredth above the post's losses."""
    return {model: (tables["post"] + 0.01).assign(epoch=tables["post"]["epoch"])[:epochs]
            for model, tables in published.items()}  # fmt: skip


def test_every_published_loss_stands_beside_ours(published):
    values = compare_losses(runs(published, 10), published)
    assert len(values) == 80
    of_post = values[values["source"] == "post"]
    assert of_post["difference"].tolist() == pytest.approx([0.01] * 40)
    first = values[
        (values["model"] == "2d") & (values["source"] == "notebook") & (values["split"] == "test")
    ].iloc[0]
    assert (first["epoch"], first["published"]) == (1, 162.713223)
    assert first["ours"] == pytest.approx(159.490324 + 0.01)


def test_an_epoch_that_the_run_does_not_have_is_null_and_the_rest_stands(published):
    values = compare_losses(runs(published, 2), published)
    assert len(values) == 80
    assert values["ours"].notna().sum() == 16
    judged = judge(values, load_intervals(ROOT / "studies/seeds.csv"))
    rows = report.summary(judged, {})["published"]
    assert [row["ours"] is None for row in rows] == [row["epoch"] > 2 for row in rows]
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot read the loss table"),
        ("epoch,train_loss\n1,2.0\n", "has no column test_loss"),
        (
            "epoch,train_loss,test_loss\n1,2.0,3.0\n2,x,3.0\n",
            "row 2: train_loss is 'x'; it should be a number",
        ),
        ("epoch,train_loss,test_loss\n1,2.0,\n", "row 1: test_loss is"),
    ],
)
def test_a_damaged_loss_table_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "losses.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_losses(path)
    assert str(path) in str(caught.value)


def test_the_published_tables_hold_the_posts_last_lines(published):
    assert published["20d"]["post"].iloc[-1].tolist() == [10, 87.911918, 87.646744]
    assert published["2d"]["post"].iloc[-1].tolist() == [10, 138.443796, 140.24413]
