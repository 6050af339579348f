"""Samples of a trained model, and paths between pictures, in the demo's folder."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import sample
from conftest import ROOT
from vae.cli import UserError
from vae.data import load_split
from vae.scores import reconstruct
from vae.weights import load_network


@pytest.fixture
def workspace(finished_demo, tmp_path, monkeypatch):
    """A folder to write to, with the demo's models, and two test images as pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("models", "params.yaml"):
        (tmp_path / name).symlink_to(finished_demo / name)
    for name, image in zip(
        "ab", load_split(finished_demo / "data/binarized", "test").images, strict=False
    ):
        Image.fromarray(image.reshape(28, 28) * np.uint8(255)).save(f"{name}.png")
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sample.py", *arguments])
    sample.main()


def drawn(name):
    """The picture, with one pixel to each of an image's."""
    return np.asarray(Image.open(name))[::4, ::4]


def test_a_grid_repeats_and_a_larger_one_begins_with_the_same_samples(workspace, monkeypatch):
    for count in (7, 9):
        run(monkeypatch, "grid", "--seed", "3", "--count", str(count), "--output", f"{count}.png")
    command = [sys.executable, ROOT / "src/tools/sample.py", "grid", "--seed", "3", "--count", "9"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (workspace / "samples.png").read_bytes() == (workspace / "9.png").read_bytes()
    seven, nine = drawn("7.png"), drawn("9.png")
    assert seven.shape == nine.shape == (84, 84)
    assert (seven[:56] == nine[:56]).all()
    assert (seven[56:, :28] == nine[56:, :28]).all()
    assert seven[56:, 28:].max() == 0 < nine[56:, 28:].max()
    run(monkeypatch, "grid", "--seed", "4", "--count", "9")
    assert (drawn("samples.png") != nine).any()


@pytest.mark.parametrize("model", ["20d", "2d"])
def test_a_path_leads_from_one_pictures_reconstruction_to_the_others(workspace, monkeypatch, model):
    weights = f"models/{model}.safetensors"
    run(monkeypatch, "interpolate", "a.png", "b.png", "--steps", "5", "--model", weights)
    tiles = drawn("between.png").reshape(28, 7, 28).swapaxes(0, 1).reshape(7, 784)
    ends = np.stack([np.asarray(Image.open(name)).ravel() for name in ("a.png", "b.png")])
    assert (tiles[[0, -1]] == ends).all()
    expected = reconstruct(load_network(workspace / weights), ends // 255) * 255
    np.testing.assert_allclose(tiles[[1, -2]], expected, atol=0.51)
    assert (tiles[3] != tiles[1]).any()


def test_the_direction_and_the_length_change_evenly_along_the_sphere():
    path = sample.along_sphere(np.array([2.0, 0.0, 0.0]), np.array([0.0, 6.0, 0.0]), 5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), [2, 3, 4, 5, 6])
    np.testing.assert_allclose(
        np.degrees(np.arctan2(path[:, 1], path[:, 0])), [0, 22.5, 45, 67.5, 90]
    )


@pytest.mark.parametrize("last", [[1.0, 1.0], [-3.0, -3.0], [0.0, 0.0]])
def test_where_no_one_way_leads_around_the_path_is_the_line(last):
    path = sample.along_sphere(np.array([1.0, 1.0]), np.array(last), 3)
    np.testing.assert_allclose(path, [[1, 1], np.add(1, last) / 2, last], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grid", "--output", "grid.gif"], "cannot write grid.gif: name a PNG file"),
        (["grid", "--model", "none.safetensors"], "cannot read the model none.safetensors"),
        (["interpolate", "a.png", "none.png"], "none.png is no file"),
        (["interpolate", "a.png", "three.npy"], "a.png and three.npy hold 4"),
        (["interpolate", "a.png", "b.png", "--output", "b.png"], "none of the inputs"),
    ],
)
def test_what_cannot_be_drawn_ends_in_one_line_and_writes_nothing(
    workspace, monkeypatch, capsys, arguments, message
):
    np.save("three.npy", np.zeros((3, 784)))
    before = {path.name: path.stat().st_mtime_ns for path in workspace.iterdir()}
    with pytest.raises(UserError, match=message) as raised:
        run(monkeypatch, *arguments)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""
    assert {path.name: path.stat().st_mtime_ns for path in workspace.iterdir()} == before


@pytest.mark.parametrize(
    "option", [("--count", "0"), ("--count", "1025"), ("--seed", "-1"), ("--seed", "x")]
)
def test_a_number_that_cannot_be_ends_with_the_usage(monkeypatch, capsys, option):
    with pytest.raises(SystemExit):
        run(monkeypatch, "grid", *option)
    assert f"{option[0]}" in capsys.readouterr().err
