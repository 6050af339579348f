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

from conftest import ROOT
from vae.cli import UserError
from vae.files import dvc_files
from vae.own_images import own_images

SIDE = (28, 28)


def pictures(count: int) -> np.ndarray:
    """Random images, `(count, 28, 28)` uint8."""
    return np.random.default_rng(count).integers(0, 256, (count, *SIDE), dtype=np.uint8)


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


def test_every_seventh_picture_of_a_folder_without_splits_is_for_test_and_none_has_a_label(own):
    images = pictures(20)
    save_pictures(own, images)
    found = own_images(own)
    assert (found["test"][0] == images[[6, 13]]).all()
    assert (found["train"][0] == np.delete(images, [6, 13], axis=0)).all()
    assert found["train"][1] is found["test"][1] is None


def test_folders_train_and_test_are_the_splits_and_folders_0_to_9_the_labels(own):
    images = pictures(6)
    for split, digit, part in (("train", 3, images[:2]), ("train", 7, images[2:5])):
        save_pictures(own / split / str(digit), part, ".bmp")
    save_pictures(own / "test/7", images[5:])
    found = own_images(own)
    assert (found["train"][0] == images[:5]).all()
    assert found["train"][1].tolist() == [3, 3, 7, 7, 7]
    assert (found["test"][0] == images[5:]).all()
    assert found["test"][1].tolist() == [7]


@pytest.mark.parametrize("labelled", [True, False])
def test_an_npz_file_of_kerass_names_keeps_its_splits(own, labelled):
    arrays = {"x_train": pictures(5), "x_test": pictures(3)}
    if labelled:
        arrays |= {"y_train": np.arange(5), "y_test": np.arange(3)}
    path = own.with_name("MINE.NPZ")  # savez would add .npz to a name like this
    with path.open("wb") as file:
        np.savez(file, **arrays)
    found = own_images(path)
    for split, (images, labels) in found.items():
        assert (images == arrays[f"x_{split}"]).all()
        assert labels is None if not labelled else labels.tolist() == [*range(len(images))]
        assert not labelled or labels.dtype == np.uint8


def test_an_npz_file_of_one_array_is_split_like_a_folder_with_its_labels(own):
    x = pictures(14)
    np.savez_compressed(own / "own.npz", x=x, y=np.arange(14) % 10)
    found = own_images(own / "own.npz")
    assert (found["test"][0] == x[[6, 13]]).all()
    assert found["test"][1].tolist() == [6, 3]


FEW = pictures(8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": FEW}, "has no array x_train; there are images"),
        ({}, "there are none"),
        ({"x": FEW}, "has 8 images; it needs 14 for two splits"),
        ({"x": FEW / 255}, "x is float64 (8, 28, 28) and"),
        ({"x": FEW.reshape(8, 784)}, "x is uint8 (8, 784)"),
        ({"x": FEW[:0]}, "x is uint8 (0, 28, 28)"),
        ({"x": FEW, "y": np.arange(7)}, "y int64 (7,); they should be"),
        ({"x": FEW, "y": np.arange(8) + 3}, "whole numbers of 0 to 9"),
        ({"x": FEW, "y": np.arange(8) / 2}, "y float64"),
        (
            {"x_train": FEW, "x_test": FEW, "y_test": np.arange(8)},
            "labels in one of train and test; it",
        ),
        ({"x": np.array([{"a": 1}])}, "cannot read"),
    ],
)
def test_an_npz_file_of_another_kind_is_refused_in_one_line(own, arrays, message):
    path = own / "own.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        own_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_kind_is_refused_by_the_name_of_what_is_wrong(own):
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            own_images(own)
        assert "\n" not in str(caught.value)

    refused("mine is neither a folder of pictures nor")
    save_pictures(own / "cat", FEW)
    refused("has pictures in cat; .* folders named 0 to 9")
    (own / "cat").rename(own / "1")
    save_pictures(own, FEW)
    refused(r"has pictures in \., 1;")
    (own / "1").rename(own / "train")
    refused("test holds no pictures")
    save_pictures(own / "test", FEW)
    Image.new("L", (28, 27)).save(own / "test/small.png")
    refused(r"small\.png has 28 x 27 pixels; it should have 28 x 28")
    (own / "test/small.png").write_bytes(b"no picture")
    refused(r"cannot read .*small\.png as a picture")


def test_pictures_of_any_depth_colour_and_format_are_read_alike(own):
    (image,) = pictures(1)
    for number in range(14):
        sixteen = Image.fromarray(np.uint16(image * 257.0 + (image < 255)))
        picture = (Image.fromarray(image), sixteen, Image.fromarray(image).convert("RGB"))[
            number % 3
        ]
        picture.save(own / f"{number:02}.{('png', 'tiff')[number % 2]}")
    found = own_images(own)
    assert len(found["train"][0]) == 12
    assert (np.concatenate((found["train"][0], found["test"][0])) == image).all()


def test_labels_of_one_split_alone_are_refused_and_so_is_too_little(own):
    save_pictures(own / "train/3", FEW)
    save_pictures(own / "test", FEW)
    with pytest.raises(UserError, match="labels in one of train and test; it needs both or none"):
        own_images(own)
    shutil.rmtree(own)
    save_pictures(own, pictures(13))
    with pytest.raises(UserError, match="has 13 images; it needs 14 for two splits"):
        own_images(own)


def test_what_is_neither_a_folder_nor_an_archive_is_refused(own):
    (own / "a.csv").write_text("1,2")
    for name in ("a.csv", "missing"):
        with pytest.raises(UserError, match=f"{name} is neither a folder of pictures nor an .npz"):
            own_images(own / name)
    (own / "a.npz").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"cannot read .*a\.npz as an \.npz file"):
        own_images(own / "a.npz")


# What editors, office programs, file managers and systems leave beside a file x.png.
LEFT = [".DS_Store", "._x.png", ".x.png.swp", ".#x.png", ".~lock.x.png#", ".nfs0001", "x.png~"]
LEFT += ["#x.png#", "~$x.png", "x.png.bak", "x.png.orig", "x.png.swp", "x.png.part", "Thumbs.db"]
LEFT += ["desktop.ini", "Icon\r", "x.png:Zone.Identifier", "x.png___jb_tmp___"]
LEFT += [".ipynb_checkpoints/x.png", "__MACOSX/x.png", "@eaDir/x.png", ".dvcignore"]


def leave(folder: Path) -> None:
    for name in LEFT:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("*" if name == ".dvcignore" else "left")


def test_what_editors_and_systems_leave_is_no_picture(own):
    images = pictures(14)
    save_pictures(own, images)
    leave(own)
    found = own_images(own)
    assert (found["test"][0] == images[[6, 13]]).all()
    assert len(found["train"][0]) == 12
    # A data set of such a name would change unnoticed.
    shutil.copytree(own, own.with_name("mine.bak"))
    with pytest.raises(UserError, match=r"mine\.bak is neither .*, or \.dvcignore names it"):
        own_images(own.with_name("mine.bak"))


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def repository(path: Path) -> None:
    (path / ".dvc").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (linked, "a link to a folder"),
        (repository, "or a DVC repository"),
        (lambda path: path.symlink_to("nowhere"), "neither a file nor a folder"),
        (lambda path: path.symlink_to(path.name), "neither a file nor a folder"),
        (os.mkfifo, "neither a file nor a folder"),
    ],
)
@pytest.mark.parametrize("place", ["mine", "other", "mine/3"])
def test_what_dvc_cannot_follow_is_refused_by_its_name(own, make, message, place):
    save_pictures(own / "2", FEW)
    path = own.with_name(place) if place == "other" else own.parent / place
    if place == "mine":
        shutil.rmtree(path)
    make(path.absolute())
    with pytest.raises(UserError, match=f"/{place}, which DVC cannot follow, is .*{message}"):
        own_images(own)


def test_a_folder_linked_as_a_whole_and_links_to_files_are_followed(own):
    images = pictures(14)
    save_pictures(own.parent / "files", images)
    for path in sorted(own.parent.glob("files/*")):
        (own / path.name).symlink_to(path.absolute())
    own.parent.rename("pictures")
    own.parent.symlink_to(Path("pictures").absolute())
    for path in own.iterdir():
        path.unlink()
        path.symlink_to(Path("pictures/files", path.name).absolute())
    assert len(own_images(own)["train"][0]) == 12


@pytest.mark.parametrize("place", ["data/own/mine", "plots", "."])
def test_a_name_that_is_not_utf8_is_named(own, monkeypatch, place):
    odd = os.fsdecode(b"caf\xe9")
    Path("plots").mkdir()
    if place == ".":
        (own / "a.png").touch()
        Path(odd).mkdir()
        for name in ("data", ".dvcignore"):
            Path(name).rename(Path(odd, name))
        monkeypatch.chdir(odd)
    else:
        Path(place, odd).touch()
    with pytest.raises(UserError, match=r"caf..*, is not in UTF-8; rename it"):
        dvc_files(Path("data/own"), Path("plots"))


def test_dvc_sees_no_file_that_an_editor_leaves_and_every_one_that_is_read(own):
    """DVC itself, by the hash of the folder."""
    save_pictures(own, FEW)
    (own / "link.png").symlink_to("000.png")
    assert dvc_files(Path("data/own")) == sorted(own.iterdir())
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    Path("dvc.yaml").write_text("stages: {a: {cmd: 'true', deps: [data/own]}}")

    def dvc(*arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    dvc("repro")
    leave(own)
    assert "up to date" in dvc("status")
    (own / "link.png").unlink()
    assert "data/own" in dvc("status")


def test_make_repro_names_it_in_one_line_before_dvc_starts(own):
    shutil.copytree(ROOT / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    Path("src/vae/more").symlink_to(own.absolute())
    command = [sys.executable, "src/tools/repro.py"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*/src/vae/more, which DVC cannot .*\n", result.stderr)
