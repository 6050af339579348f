import gzip

import numpy as np
import pytest
import torch

from vae.data import Split, binarize, load_split, read_idx, save_split, write_idx
from vae.errors import UserError


def test_binarize_is_the_posts_round_for_every_gray_value():
    grays = np.arange(256, dtype=np.uint8)[None]
    as_in_the_post = torch.from_numpy(grays).float().div(255).round()
    assert (binarize(grays, threshold=128) == as_in_the_post.numpy()).all()


def test_an_idx_file_reads_back_and_its_bytes_repeat(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name in ("a.gz", "b.gz"):
        write_idx(tmp_path / name, values)
    assert (read_idx(tmp_path / "a.gz", 3) == values).all()
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def idx(header: bytes, values: bytes) -> bytes:
    return gzip.compress(header + values)


HEADER = bytes((0, 0, 8, 1, 0, 0, 0, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(HEADER, b"abcd")[:-9], "cannot read"),
        (b"<html>not found</html>", "cannot read"),
        (b"", "no IDX file"),
        (idx(bytes((0, 0, 9, 1, 0, 0, 0, 4)), b"abcd"), "no IDX file"),
        (idx(bytes((0, 0, 8, 3)) + bytes(12), b""), "no IDX file"),
        (idx(HEADER, b"abc"), "does not hold the 4 values"),
        (idx(HEADER, b"abcde"), "does not hold the 4 values"),
        (idx(bytes((0, 0, 8, 1, 255, 255, 255, 255)), b""), "1 to 134217728 are allowed"),
    ],
)
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "labels.gz"
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
    assert (tmp_path / "train.safetensors").read_bytes() == (tmp_path / "test.safetensors").read_bytes()


def test_a_missing_or_damaged_split_names_the_stage_to_run(tmp_path):
    (tmp_path / "test.safetensors").write_bytes(b"damaged")
    for name in ("train", "test"):
        with pytest.raises(UserError, match="dvc repro binarize"):
            load_split(tmp_path, name)
