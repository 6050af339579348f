"""The user's own images as files: how they are read, and how they are scored."""

import json
import sys
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

import score
from vae.cli import UserError
from vae.data import load_split, raw_files, read_idx, upscaled_digits
from vae.inference import anomaly_scores
from vae.model import load_model
from vae.preprocessing import Picture, as_mnist, read_pictures
from vae.scores import limits


@pytest.fixture(scope="module")
def gray(finished_demo):
    """The demo's test images `(images, 28, 28)` as gray values."""
    return read_idx(raw_files(finished_demo / "data/raw")["test"][0], 3)


@pytest.fixture
def run(finished_demo, monkeypatch, capsys):
    """Score images in the demo's folder, in this process; return what is printed."""

    def run(*arguments):
        monkeypatch.chdir(finished_demo)
        monkeypatch.setattr(sys, "argv", ["score.py", *map(str, arguments)])
        score.main()
        return capsys.readouterr().out

    return run


def upscaled(image, side=196):
    """A light digit as a larger picture of a dark one."""
    return Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC)


def drawn(ink, paper):
    """A picture 160 x 120 of a stroke with a bend."""
    picture = np.full((120, 160), paper, np.uint8)
    picture[20:100, 70:82] = ink
    picture[88:100, 70:120] = ink
    return picture


def saved(kind, **options):
    """The bytes of an array's or a picture's file."""
    if kind == "npy":
        np.save(file := BytesIO(), np.zeros((2, 28, 28), np.uint8))
    else:
        Image.fromarray(drawn(0, 255)).save(file := BytesIO(), kind, **options)
    return file.getvalue()


def test_a_test_image_has_its_anomaly_scores_in_any_form(finished_demo, run, gray, tmp_path):
    Image.fromarray(gray[0]).save(tmp_path / "digit.png")
    Image.fromarray(255 - gray[0]).save(tmp_path / "inverted.png")
    Image.fromarray(gray[0].repeat(8, axis=0).repeat(8, axis=1)).save(tmp_path / "enlarged.png")
    np.save(tmp_path / "array.npy", gray[:3])
    found = json.loads(run("--json", *sorted(tmp_path.iterdir())))

    model, data = load_model(finished_demo / "models/20d.safetensors"), finished_demo / "data"
    known = anomaly_scores(model, train := load_split(data / "binarized", "train").images)
    expected = anomaly_scores(model, load_split(data / "binarized", "test").images[:3])
    assert [row["name"][-3:] for row in found["images"][:3]] == ["[0]", "[1]", "[2]"]
    assert found["images"][-1]["polarity"] == "dark-on-light"
    assert found["training_images"] == len(train)
    for row, number in zip(found["images"], [0, 1, 2, 0, 0, 0], strict=True):
        for name, values in expected.items():
            assert row[name] == pytest.approx(values[number], rel=1e-6), row["name"]
            share = (known[name] <= values[number]).mean()
            assert row[f"{name}_percentile"] == pytest.approx(100 * share, abs=0.1)
    assert found["thresholds"]["kl"] == pytest.approx(np.percentile(known["kl"], 99.9))


def test_the_table_has_each_image_and_the_figure_is_png(run, gray, tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (2, 784), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", noise)
    Image.new("RGB", (90, 60), "white").save(tmp_path / "blank.png")
    upscaled(gray[0]).save(tmp_path / "a$b$c.jpg")
    names = [str(tmp_path / name) for name in ("noise.npy", "blank.png", "a$b$c.jpg")]
    shown = run(*names, "--figure", tmp_path / "shown.png")
    assert max(len(line) for line in shown.splitlines() if not line.startswith("/")) <= 80
    _, *lines, meaning, thresholds = shown.splitlines()
    assert "  note: there is no figure on it" in lines
    lines = [line for line in lines if "note" not in line]
    # An image has its name, its verdict and three scores.
    assert lines[::5] == [f"{names[0]}[0]", f"{names[0]}[1]", *names[1:]]
    assert all(line.startswith("  anomalous by ") for line in lines[1:15:5])
    assert lines[16] == "  ordinary: by no score among the strangest 0.1 %"
    assert "training images" in meaning and "KL above " in thresholds
    with Image.open(tmp_path / "shown.png") as figure:
        assert (figure.format, figure.size) == ("PNG", (1800, 620))  # two images beside two


def test_a_percentile_has_its_place_on_the_scale():
    places = {0: 0, 0.1: 0, 10: 10, 50: 15, 99.1: 25, 100: 30}
    assert {share: score.scale(share).index("o") for share in places} == places


def test_bad_images_are_named_and_the_others_are_scored(run, gray, tmp_path, capsys):
    upscaled(gray[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("a text")
    Image.new("LAB", (30, 30)).save(tmp_path / "lab.tiff")
    # The last cannot even be looked for.
    images = [tmp_path / name for name in ("bad.png", "lab.tiff", "good.png", 300 * "x")]
    with pytest.raises(UserError) as raised:
        run(*images, "--figure", tmp_path / "out.png")
    shown, error = capsys.readouterr().out, str(raised.value)
    assert shown.splitlines()[1] == f"{tmp_path}/good.png"
    assert error.startswith(f"cannot read {tmp_path}/bad.png as a picture")
    assert f"; cannot read {tmp_path}/lab.tiff as a picture (" in error
    assert f"File name too long: '{tmp_path}/xxx" in error
    assert "\n" not in error and (tmp_path / "out.png").exists()


def test_what_may_not_be_one_digit_has_a_note(gray):
    def noted(pixels):
        return Picture("a", pixels, *as_mnist(pixels, "auto")).notes(128)

    assert noted(np.uint8(gray[0])) == []
    beside = np.concatenate([upscaled(image) for image in gray[:3]], axis=1)
    assert noted(beside) == ["it has 3 separate figures"]
    speck = np.zeros((28, 28), np.uint8)
    speck[3:6, 3:6] = 255
    assert noted(speck) == ["only 9 pixels are left of it"]
    dark = np.full((28, 28), 160, np.uint8)
    dark[8:20, 12:16] = 0
    assert noted(dark) == ["more of it is light than dark; is its digit dark (--polarity)?"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "is no file"),
        (".", None, "is no file"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "as a pic"),
        ("bomb.pgm", b"P5 12000 12000 255 ", "decompression bomb"),
        ("a.tiff", saved("tiff", save_all=True, append_images=[Image.new("L", (9, 9))]), "2 pages"),
        ("object.npy", np.array([{}], object), "as a .npy array"),
        ("shape.npy", np.zeros((28, 27), np.uint8), r"the shape \(28, 27\)"),
        ("none.npy", np.zeros((0, 784)), r"the shape \(0, 784\)"),
        ("whole.npy", np.zeros((28, 28), int), "holds int64"),
        ("nan.npy", np.full((28, 28), np.nan), "NaN"),
        ("range.npy", np.full((28, 28), 255.0), "outside 0.0 to 1.0"),
    ],
)
def test_what_is_no_image_ends_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_pictures(path, "auto")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("figure", ["figure.jpg", "./plots/noise.png"])
def test_a_figure_is_a_png_and_none_of_the_inputs(run, figure):
    with pytest.raises(UserError, match="that is none of the inputs"):
        run("plots/noise.png", "--figure", figure)


def test_a_scaled_and_inverted_digit_keeps_mnists_form():
    first = np.asarray(upscaled(np.uint8(upscaled_digits()[0][0])))
    image = as_mnist(first, "auto")[0].reshape(28, 28)
    assert np.ptp(np.nonzero(image >= 128), axis=1).max() in (18, 19)
    np.testing.assert_allclose(ndimage.center_of_mass(image), 14, atol=0.51)
    for side in (64, 1000):
        pixels, inverted = as_mnist(np.asarray(upscaled(image, side)), "auto")
        assert inverted
        found, expected = pixels >= 128, image.ravel() >= 128
        assert (found != expected).sum() < 0.3 * expected.sum()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (40, 3)])
def test_ink_of_any_size_fills_the_box(size):
    pixels, _ = as_mnist(np.pad(np.full(size, 255, np.uint8), 12), "auto")
    found = np.ptp(np.nonzero(pixels.reshape(28, 28) >= 128), axis=1) + 1
    assert found.tolist() == [max(1, round(side * 20 / max(size))) for side in size]


@pytest.mark.parametrize("width", [2, 30, 150])
def test_a_thin_pen_leaves_an_unbroken_line(tmp_path, width):
    sheet = Image.new("L", (2400, 3000), 235)
    ImageDraw.Draw(sheet).ellipse((700, 600, 1700, 2400), outline=30, width=width)
    sheet.save(tmp_path / "sheet.png")
    (picture,) = read_pictures(tmp_path / "sheet.png", "auto")
    ink = picture.pixels.reshape(28, 28) >= 128
    # A closed line keeps inside and outside apart. One pixel wide it has about 50.
    assert ndimage.label(~ink)[1] == 2
    assert 40 < ink.sum() < 120


def test_a_polarity_that_is_given_decides():
    picture = drawn(40, 230)
    assert as_mnist(picture, "auto")[1] and as_mnist(picture, "dark-on-light")[1]
    assert as_mnist(picture, "light-on-dark")[0].sum() == 0
    small = np.full((28, 28), 200, np.uint8)
    small[14, 14] = 210
    assert as_mnist(small, "light-on-dark")[0].min() == 200
    assert as_mnist(small, "dark-on-light")[0].max() == 55


def test_images_of_coin_flips_are_never_inverted():
    flips = np.random.default_rng(0).integers(0, 2, (1000, 28, 28), np.uint8) * np.uint8(255)
    assert not any(as_mnist(image, "auto")[1] for image in flips)


@pytest.mark.parametrize("ink", [0, 255])
def test_a_transparent_background_contrasts_with_the_ink(tmp_path, ink):
    rgba = np.zeros((120, 160, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = ink, drawn(255, 0)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    (picture,) = read_pictures(tmp_path / "clear.png", "auto")
    assert (picture.pixels == as_mnist(drawn(255, 0), "auto")[0]).all()


# EXIF's orientations 2 to 8, and how a picture is stored for a reader that turns it by them.
@pytest.mark.parametrize(("orientation", "turn"), [*enumerate((0, 3, 1, 5, 2, 6, 4), 2)])
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_a_turned_and_inverted_picture_is_read_alike(tmp_path, suffix, orientation, turn):
    """Or it is refused."""
    expected = as_mnist(drawn(40, 200), "auto")[0]
    picture = Image.fromarray(255 - drawn(40, 200)).transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif, lossless=True)
    if suffix == "tiff" and orientation > 4:
        with pytest.raises(UserError, match="a TIFF on its side; turn it, or save it as PNG"):
            read_pictures(path, "auto")
    else:
        assert np.array_equal(read_pictures(path, "auto")[0].pixels, expected)


# Modes of Pillow's, and what one of its pictures of 8 bits becomes in them.
READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
MODES = {mode: partial(Image.Image.convert, mode=mode) for mode in (*READ, "F")}
MODES |= {
    "LAB": lambda image: Image.merge("LAB", (image, *[Image.new("L", image.size, 128)] * 2)),
    "I": lambda image: image.convert("I").point(lambda value: value * 257),
    "F of 0.0 to 1.0": lambda image: image.convert("F").point(lambda value: value / 255 + 0),
    "I;16": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257),
}
FORMATS = ("tiff", "png", "ppm", "jp2", "spider", "tga", "sgi", "pcx", "dds", "bmp")


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_read_alike_or_refused(tmp_path, mode):
    picture = Image.fromarray(drawn(0, 255) if mode == "1" else drawn(40, 200))
    expected = as_mnist(np.asarray(picture), "auto")[0]
    found = []
    for suffix in FORMATS:
        path = tmp_path / f"b.{suffix}"
        try:
            MODES[mode](picture).save(path, format="SPIDER" if suffix == "spider" else None)
        except (OSError, KeyError, ValueError):  # this format has no such mode
            continue
        try:
            assert (read_pictures(path, "auto")[0].pixels == expected).all(), suffix
            found.append("read")
        except UserError as error:
            assert str(path) in str(error)
            found.append("refused")
    assert found and ("read" in found) == (mode in (*READ, "I;16"))


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    st.binary(min_size=98, max_size=98),
    st.sampled_from(["uint8", "of 0 and 255", "bool", "float16", "float32", "float64", "Fortran"]),
    st.sampled_from([(28, 28), (1, 28, 28), (1, 784), (784,)]),
)
def test_an_array_has_the_same_pixels_in_any_type(tmp_path, content, kind, shape):
    image = np.unpackbits(np.frombuffer(content, np.uint8)).reshape(shape)
    arrays = {"of 0 and 255": image * np.uint8(255), "Fortran": np.asfortranarray(image)}
    np.save(tmp_path / "a.npy", arrays[kind] if kind in arrays else image.astype(kind))
    (found,) = read_pictures(tmp_path / "a.npy", "light-on-dark")
    assert np.array_equal(found.pixels >= 128, image.ravel() == 1)


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (90, 60)])
@pytest.mark.parametrize("colour", ["gray", "white", "#ff000000"])
def test_a_picture_of_one_colour_is_blank(tmp_path, size, colour):
    Image.new("RGBA", size, colour).save(tmp_path / "one.png")
    (picture,) = read_pictures(tmp_path / "one.png", "auto")
    assert picture.pixels.max() == 0


@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.sampled_from(("png", "jpeg", "npy")), st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, suffix, data):
    content = bytearray(saved(suffix))
    where = st.integers(0, min(len(content), 400) - 1)
    for place, value in data.draw(st.dictionaries(where, st.integers(0, 255), max_size=20)).items():
        content[place] = value
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert all(picture.pixels.shape == (784,) for picture in read_pictures(path, "auto"))
    except UserError as error:
        assert "\n" not in str(error)


def test_each_score_calls_images_anomalous_on_its_side():
    """KL and negative ELBO above their limit, reconstruction below."""
    values = np.array([[500.0, 999, 0, 500], [500, 2000, 500, 0], [500, 500, 999, 0]])
    scores = dict(zip(("kl", "reconstruction", "negative_elbo"), values, strict=True))
    training = dict.fromkeys(scores, np.arange(1000.0))
    beyond = limits(training, 99.9)
    assert [beyond[name] for name in scores] == pytest.approx([998.001, 0.999, 998.001])
    rows = score.score_rows(scores, training, beyond)
    found = [row["anomalous_by"] for row in rows]
    assert found == [[], ["kl"], ["negative_elbo"], ["reconstruction"]]
    assert rows[0]["kl_percentile"] == pytest.approx(50.1)
