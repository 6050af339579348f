"""A user's own images: what is read, what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from vae.cli import UserError
from vae.own_images import own_images

SIDE = (28, 28)


def pictures(count: int) -> np.ndarray:
    """Random images, `(count, 28, 28)` uint8."""
    return np.random.default_rng(count).integers(0, 256, (count, *SIDE), dtype=np.uint8)


def save_pictures(folder, images, suffix=".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}{suffix}")


def test_every_seventh_picture_of_a_folder_without_splits_is_for_test_and_none_has_a_label(
    tmp_path,
):
    images = pictures(20)
    save_pictures(tmp_path / "own", images)
    (tmp_path / "own/.hidden").write_text("no picture")
    found = own_images(tmp_path / "own")
    assert (found["test"][0] == images[[6, 13]]).all()
    assert (found["train"][0] == np.delete(images, [6, 13], axis=0)).all()
    assert found["train"][1] is found["test"][1] is None


def test_folders_train_and_test_are_the_splits_and_folders_0_to_9_the_labels(tmp_path):
    images = pictures(6)
    for split, digit, part in (("train", 3, images[:2]), ("train", 7, images[2:5])):
        save_pictures(tmp_path / split / str(digit), part, ".bmp")
    save_pictures(tmp_path / "test/7", images[5:])
    found = own_images(tmp_path)
    assert (found["train"][0] == images[:5]).all()
    assert found["train"][1].tolist() == [3, 3, 7, 7, 7]
    assert (found["test"][0] == images[5:]).all()
    assert found["test"][1].tolist() == [7]


@pytest.mark.parametrize("labelled", [True, False])
def test_an_npz_file_of_kerass_names_keeps_its_splits(tmp_path, labelled):
    arrays = {"x_train": pictures(5), "x_test": pictures(3)}
    if labelled:
        arrays |= {"y_train": np.arange(5), "y_test": np.arange(3)}
    np.savez(tmp_path / "own.npz", **arrays)
    found = own_images(tmp_path / "own.npz")
    for split, (images, labels) in found.items():
        assert (images == arrays[f"x_{split}"]).all()
        assert labels is None if not labelled else labels.tolist() == [*range(len(images))]
        assert not labelled or labels.dtype == np.uint8


def test_an_npz_file_of_one_array_is_split_like_a_folder_with_its_labels(tmp_path):
    x = pictures(14)
    np.savez_compressed(tmp_path / "own.npz", x=x, y=np.arange(14) % 10)
    found = own_images(tmp_path / "own.npz")
    assert (found["test"][0] == x[[6, 13]]).all()
    assert found["test"][1].tolist() == [6, 3]


FEW = pictures(8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": FEW}, "has no array x_train; there are images"),
        ({}, "there are none"),
        ({"x": FEW[:6]}, "has 6 images; 7 or more"),
        ({"x": FEW / 255}, "x is float64 (8, 28, 28) and"),
        ({"x": FEW.reshape(8, 784)}, "x is uint8 (8, 784)"),
        ({"x": FEW[:0]}, "x is uint8 (0, 28, 28)"),
        ({"x": FEW, "y": np.arange(7)}, "y int64 (7,); they should be"),
        ({"x": FEW, "y": np.arange(8) + 3}, "whole numbers of 0 to 9"),
        ({"x": FEW, "y": np.arange(8) / 2}, "y float64"),
        ({"x_train": FEW, "x_test": FEW, "y_test": np.arange(8)}, "only one of y_train and y_test"),
        ({"x": np.array([{"a": 1}])}, "cannot read"),
    ],
)
def test_an_npz_file_of_another_kind_is_refused_in_one_line(tmp_path, arrays, message):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        own_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_kind_is_refused_by_the_name_of_what_is_wrong(tmp_path):
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            own_images(tmp_path)
        assert "\n" not in str(caught.value)

    refused("holds no pictures")
    save_pictures(tmp_path / "cat", FEW)
    refused("has pictures in cat; .* folders named 0 to 9")
    (tmp_path / "cat").rename(tmp_path / "1")
    save_pictures(tmp_path, FEW)
    refused(r"has pictures in \., 1;")
    (tmp_path / "1").rename(tmp_path / "train")
    refused("test holds no pictures")
    save_pictures(tmp_path / "test", FEW)
    Image.new("L", (28, 27)).save(tmp_path / "test/small.png")
    refused(r"small\.png has 28 x 27 pixels; it should have 28 x 28")
    (tmp_path / "test/small.png").write_bytes(b"no picture")
    refused(r"cannot read .*small\.png as a picture")


def test_pictures_of_any_depth_colour_and_format_are_read_alike(tmp_path):
    (image,) = pictures(1)
    for number in range(7):
        sixteen = Image.fromarray(np.uint16(image * 257.0 + (image < 255)))
        picture = (Image.fromarray(image), sixteen, Image.fromarray(image).convert("RGB"))[
            number % 3
        ]
        picture.save(tmp_path / f"{number}.{('png', 'tiff')[number % 2]}")
    found = own_images(tmp_path)
    assert len(found["train"][0]) == 6
    assert (np.concatenate((found["train"][0], found["test"][0])) == image).all()


def test_what_is_neither_a_folder_nor_an_archive_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    for name in ("a.csv", "missing"):
        with pytest.raises(UserError, match=f"{name} is neither a folder nor an .npz file"):
            own_images(tmp_path / name)
    (tmp_path / "a.npz").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"cannot read .*a\.npz as an \.npz file"):
        own_images(tmp_path / "a.npz")
