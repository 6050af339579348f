import gzip
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import binarize as binarize_stage
import download
from conftest import ROOT
from vae.cli import UserError
from vae.data import Split, binarize, load_split, read_idx, sample_pixels, save_split, write_idx


def test_binarize_is_the_posts_round_for_every_gray_value():
    grays = np.arange(256, dtype=np.uint8)[None]
    as_in_the_post = torch.from_numpy(grays).float().div(255).round()
    assert (binarize(grays, threshold=128) == as_in_the_post.numpy()).all()


def test_drawn_pixels_have_their_probability_and_follow_the_seed():
    gray = np.tile(np.arange(256, dtype=np.uint8), (4000, 4))[:, :784]
    drawn, again, other = (sample_pixels(gray, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert np.array_equal(drawn, again)
    assert not np.array_equal(drawn, other)
    assert drawn.max() == 1
    share = np.array([drawn[gray == value].mean() for value in range(256)])
    assert (share[0], share[255]) == (0, 1)
    # Five standard errors of 12,000 draws.
    assert np.abs(share - np.arange(256) / 255).max() < 5 * 0.5 / 12000**0.5


def test_an_idx_file_reads_back_and_its_bytes_repeat(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name in ("a.gz", "b.gz"):
        write_idx(tmp_path / name, values)
    assert (read_idx(tmp_path / "a.gz", 3) == values).all()
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def idx(type_and_dimensions: tuple[int, int], count: int, values: bytes) -> bytes:
    return gzip.compress(bytes((0, 0, *type_and_dimensions, 0, 0, 0, count)) + values, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"<html>not found</html>", "cannot read"),
        (idx((8, 1), 4, b"abcd")[:-9], "cannot read"),
        (idx((8, 1), 4, b"abcd")[:-8] + bytes(8), "cannot read"),
        (idx((9, 1), 4, b"abcd"), "no 1-dimensional IDX"),
        (idx((8, 3), 0, bytes(8)), "no 1-dimensional IDX"),
        (idx((8, 1), 4, b"abc"), "no 1-dimensional IDX"),
        (idx((8, 1), 0, b""), "no 1-dimensional IDX"),
    ],
)
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "labels.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path, dimensions=1)
    assert str(path) in str(caught.value)


def test_a_split_reads_back_and_its_bytes_repeat(tmp_path):
    split = Split(np.eye(784, dtype=np.uint8), np.arange(784, dtype=np.uint8) % 10)
    for name in ("train", "test"):
        save_split(split, tmp_path / f"{name}.safetensors")
    loaded = load_split(tmp_path, "train")
    assert (loaded.images == split.images).all()
    assert (loaded.labels == split.labels).all()
    train, test = (path.read_bytes() for path in tmp_path.iterdir())
    assert train == test
    save_split(Split(split.images), tmp_path / "train.safetensors")
    assert load_split(tmp_path, "train").labels is None


GOOD = {"images": np.eye(3, 784, dtype=np.uint8), "labels": np.arange(3, dtype=np.uint8)}


@pytest.mark.parametrize(
    "content",
    [
        save(GOOD | {"images": np.eye(4, 784, dtype=np.uint8)}),
        save(GOOD | {"images": np.eye(3, 28, dtype=np.uint8)}),
        save(GOOD | {"images": np.eye(3, 784, dtype=np.float64)}),
        save(GOOD | {"images": np.full((3, 784), 2, np.uint8)}),
        save(GOOD | {"labels": np.full(3, 10, np.uint8)}),
        save(GOOD | {"labels": np.arange(3)}),
        save({name: array[:0] for name, array in GOOD.items()}),
        save({"labels": GOOD["labels"]}),
        pickle.dumps(print),
        None,
    ],
)
def test_a_damaged_or_missing_split_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "train.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*run `dvc repro") as caught:
        load_split(tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "same"), [("train", np.zeros((9, 28, 28))), ("t10k", np.eye(28)[None])]
)
def test_images_that_are_equal_when_binarized_are_refused(tmp_path, monkeypatch, same, split):
    download.write_digits(tmp_path / "raw")
    write_idx(tmp_path / f"raw/Digits/raw/{split}-images-idx3-ubyte.gz", same * 127 + 128)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["binarize.py", f"{tmp_path}/raw", f"{tmp_path}/binarized"])
    message = rf"the {len(same)} images of .* at least two should differ"
    with pytest.raises(UserError, match=message):
        binarize_stage.main()
