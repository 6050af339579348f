"""A user's own images: what is read, what is refused, and what DVC sees of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, call
from vae.cli import UserError
from vae.custom_data import read_custom_data
from vae.files import dvc_files

# What editors, office programs, file managers and systems leave beside a file x.png.
LEFT = [".DS_Store", "._x.png", ".x.png.swp", ".#x.png", ".~lock.x.png#", ".nfs0001", "x.png~"]
LEFT += ["#x.png#", "~$x.png", "x.png.bak", "x.png.orig", "x.png.swp", "x.png.part", "Thumbs.db"]
LEFT += ["desktop.ini", "Icon\r", "x.png:Zone.Identifier", "x.png___jb_tmp___"]
LEFT += [".ipynb_checkpoints/x.png", "__MACOSX/x.png", "@eaDir/x.png", ".dvcignore"]


def pictures(count: int) -> np.ndarray:
    """Random images, `(count, 28, 28)` uint8."""
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


FEW = pictures(8)


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """The folder data/own/mine of a repository, from whose root it is named."""
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = Path("data/own/mine")
    folder.mkdir(parents=True)
    return folder


def save_pictures(folder, images, suffix=".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}{suffix}")


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_custom_data(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_seventh_image_is_for_test(own):
    """Of a plain folder of pictures, and of an .npz file of one array."""
    images, test = pictures(20), [6, 13]
    save_pictures(own / "a", images)
    np.savez_compressed(own / "b.npz", x=images, y=np.arange(20) % 10)
    for name, labels in (("a", None), ("b.npz", [6, 3])):
        found = read_custom_data(own / name)
        assert (found["test"][0] == images[test]).all()
        assert (found["train"][0] == np.delete(images, test, axis=0)).all()
        assert np.array_equal(found["test"][1], labels)
    assert found["test"][1].dtype == np.uint8


def test_folders_and_kerass_names_give_splits_and_labels(own):
    images, labels = pictures(6), [3, 3, 7, 7, 7]
    for split, digit, part in (("train", 3, images[:2]), ("train", 7, images[2:5])):
        save_pictures(own / split / str(digit), part, ".bmp")
    save_pictures(own / "test/7", images[5:])
    archive = own.with_name("MINE.NPZ")  # savez would add .npz to a name like this
    with archive.open("wb") as file:
        np.savez(file, x_train=images[:5], y_train=labels, x_test=images[5:], y_test=[7])
    for path in (own, archive):
        found = read_custom_data(path)
        assert (found["train"][0] == images[:5]).all()
        assert (found["test"][0] == images[5:]).all()
        assert [found[name][1].tolist() for name in ("train", "test")] == [labels, [7]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": FEW}, "has no array x_train; there are images"),
        ({"x": FEW}, "has 8 images; it needs 14 for two splits"),
        ({"x": FEW / 255}, "x is float64 (8, 28, 28) and"),
        ({"x": FEW.reshape(8, 784)}, "x is uint8 (8, 784)"),
        ({"x": FEW[:0]}, "x is uint8 (0, 28, 28)"),
        ({"x": FEW, "y": np.arange(7)}, "y int64 (7,); they should be"),
        ({"x": FEW, "y": np.arange(8) + 3}, "whole numbers of 0 to 9"),
        ({"x_train": FEW, "x_test": FEW, "y_test": np.arange(8)}, "labels in one of train and"),
        ({"x": np.array([{"a": 1}])}, "cannot read"),
    ],
)
def test_an_npz_file_of_another_kind_is_refused(own, arrays, message):
    np.savez(own / "own.npz", **arrays)
    refused(own / "own.npz", re.escape(message))


def test_a_folder_of_another_kind_is_refused(own):
    refused(own, "mine is neither a folder of pictures nor")
    save_pictures(own, pictures(13))
    refused(own, "has 13 images; it needs 14 for two splits")
    save_pictures(own / "cat", FEW)
    refused(own, r"has pictures in \., cat; .* folders named 0 to 9")
    shutil.rmtree(own)
    save_pictures(own / "train/1", FEW)
    refused(own, "test holds no pictures")
    save_pictures(own / "test", FEW)
    refused(own, "labels in one of train and test; it needs both or none")
    Image.new("L", (28, 27)).save(own / "test/small.png")
    refused(own, r"small\.png has 28 x 27 pixels; it should have 28 x 28")
    (own / "test/small.png").write_bytes(b"no picture")
    refused(own, r"cannot read .*small\.png as a picture")
    own.rename(own.with_name("mine.bak"))  # in which DVC would notice no change
    refused(own.with_name("mine.bak"), r"mine\.bak is neither .*, or \.dvcignore names it")


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
@pytest.mark.parametrize("place", ["other", "mine/3"])
def test_a_link_that_dvc_cannot_follow_is_named(own, target, place):
    Path("elsewhere").mkdir()
    save_pictures(own / "2", FEW)
    (own.parent / place).symlink_to(Path(target).absolute())
    with pytest.raises(UserError, match=f"/{place}, .* is a link to a folder"):
        read_custom_data(own)


def test_a_linked_data_own_is_followed(own):
    save_pictures(own, pictures(14))
    own.parent.rename("pictures")
    own.parent.symlink_to(Path("pictures").absolute())
    assert len(read_custom_data(own)["train"][0]) == 12


@pytest.mark.parametrize("checkout", [True, False])
def test_a_name_that_is_not_utf8_is_named(own, monkeypatch, checkout):
    odd = Path(os.fsdecode(b"caf\xe9"))
    if checkout:
        shutil.copytree(".", odd)
        monkeypatch.chdir(odd)
    (own / ("a.png" if checkout else odd)).touch()
    with pytest.raises(UserError, match=r"caf.*, which .*, is not in UTF-8; rename it"):
        dvc_files(Path("data/own"))


def test_dvc_itself_sees_exactly_the_files_that_are_read(own):
    """Links to files are followed; what editors and systems leave is no picture."""
    save_pictures(own, FEW)
    (own / "link.png").symlink_to("000.png")
    files = sorted(own.iterdir())
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    Path("dvc.yaml").write_text("stages: {a: {cmd: 'true', deps: [data/own]}}")
    call(Path(), "dvc", "repro")
    for name in LEFT:
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("*" if name == ".dvcignore" else "left")
    assert dvc_files(Path("data/own")) == files
    assert "up to date" in call(Path(), "dvc", "status")
    (own / "link.png").unlink()
    assert "data/own" in call(Path(), "dvc", "status")


def test_make_repro_names_it_in_one_line_before_dvc_starts(own):
    shutil.copytree(ROOT / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    Path("src/vae/more").symlink_to(own.absolute())
    result = subprocess.run([sys.executable, "src/tools/repro.py"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: .*/src/vae/more, which DVC cannot .*\n", result.stderr)
