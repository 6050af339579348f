"""The user's own images as files: how they are read, and how they are scored."""

import json
import pickle
import struct
import subprocess
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

import score
from conftest import ROOT
from vae.cli import UserError
from vae.data import load_split, raw_files, read_idx, upscaled_digits
from vae.images import Picture, as_mnist, read_pictures
from vae.inference import anomaly_scores
from vae.model import load_model
from vae.scores import limits


@pytest.fixture(scope="module")
def gray(finished_demo):
    """The demo's test images `(images, 28, 28)` as gray values."""
    return read_idx(raw_files(finished_demo / "data/raw")["test"][0], 3)


@pytest.fixture
def run(finished_demo, monkeypatch, capsys):
    """Score images in the demo's folder, in this process; what is printed."""

    def run(*arguments):
        monkeypatch.chdir(finished_demo)
        monkeypatch.setattr(sys, "argv", ["score.py", *map(str, arguments)])
        score.main()
        return capsys.readouterr().out

    return run


def upscaled(image, side=196):
    """A light digit as a larger picture of a dark one."""
    return Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC)


def differing(pixels, image):
    """The share of an image's ink by which another one, binarized, differs."""
    return ((pixels >= 128) != (image.ravel() >= 128)).sum() / (image >= 128).sum()


def test_a_test_image_has_the_anomaly_stages_scores_in_any_form(finished_demo, run, gray, tmp_path):
    Image.fromarray(gray[0]).save(tmp_path / "digit.png")
    Image.fromarray(255 - gray[0]).save(tmp_path / "inverted.png")
    Image.fromarray(gray[0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray[0].repeat(8, axis=0).repeat(8, axis=1)).save(tmp_path / "enlarged.png")
    np.save(tmp_path / "bytes.npy", gray[:3])
    np.save(tmp_path / "floats.npy", (gray[:3] / 255).astype(np.float32))
    np.save(tmp_path / "flat.npy", gray[:3].reshape(3, 784) >= 128)
    np.save(tmp_path / "binarized.npy", (gray[0] >= 128).astype(np.uint8))
    pictures = ["digit.png", "inverted.png", "deep.png", "enlarged.png"]
    arrays = ["bytes.npy", "floats.npy", "flat.npy", "binarized.npy"]
    found = json.loads(run("--json", *(tmp_path / name for name in pictures + arrays)))

    model = load_model(finished_demo / "models/20d.safetensors")
    test, train = (
        load_split(finished_demo / "data/binarized", name).images for name in ("test", "train")
    )
    expected, known = anomaly_scores(model, test[:3]), anomaly_scores(model, train)
    shown = [0, 0, 0, 0, *[0, 1, 2] * 3, 0]
    assert [row["name"].count("[") for row in found["images"]] == [0, 0, 0, 0, *[1] * 9, 0]
    assert found["images"][1]["polarity"] == "dark-on-light"
    assert found["training_images"] == len(train)
    for row, number in zip(found["images"], shown, strict=True):
        for name, values in expected.items():
            assert row[name] == pytest.approx(values[number], rel=1e-6), row["name"]
            share = (known[name] <= values[number]).mean()
            assert row[f"{name}_percentile"] == pytest.approx(100 * share, abs=0.1)
    assert found["thresholds"]["kl"] == pytest.approx(np.percentile(known["kl"], 99.9))


def test_the_table_has_each_image_and_the_figure_is_a_png(run, gray, tmp_path):
    np.save(
        tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 2, (2, 784), dtype=np.uint8)
    )
    Image.new("RGB", (90, 60), "white").save(tmp_path / "blank.png")
    upscaled(gray[0]).save(tmp_path / "a$b$c.jpg")
    names = [str(tmp_path / name) for name in ("noise.npy", "blank.png", "a$b$c.jpg")]
    figure = tmp_path / "shown.png"
    first, again = (run(*names, "--figure", figure) for _ in range(2))
    assert first == again
    _, *lines, meaning, thresholds = first.splitlines()
    assert "note: there is no figure on it" in [line.strip() for line in lines]
    lines = [line for line in lines if "note" not in line]
    # An image has its name, its verdict and three scores.
    assert lines[::5] == [f"{names[0]}[0]", f"{names[0]}[1]", *names[1:]]
    verdicts = [line.strip() for line in lines[1::5]]
    assert all(line.startswith("anomalous by ") for line in verdicts[:3])
    assert "negative ELBO" in verdicts[0]
    assert verdicts[3] == "ordinary: by no score among the strangest 0.1 %"
    assert max(len(line) for line in first.splitlines() if not line.startswith("/")) <= 80
    assert "training images" in meaning
    assert thresholds.startswith("KL above ")
    with Image.open(figure) as drawn:
        assert drawn.format == "PNG"
        assert drawn.size == (1800, 620)  # two images beside two


@pytest.mark.parametrize(
    ("percentage", "place"),
    [(0, 0), (0.1, 0), (1, 5), (10, 10), (50, 15), (90, 20), (99.1, 25), (99.9, 30), (100, 30)],
)
def test_a_percentile_stands_under_its_number(percentage, place):
    head = score.table([], {"kl": 1, "negative_elbo": 1, "reconstruction": 1}, 9, 99.9)
    line = f"  {'KL':14}{1:9.2f}     {score.scale(percentage)}"
    assert line.index("o") == 30 + place
    number = f"{percentage:g}"
    if number in ("0.1", "1", "10", "50", "90", "99.9"):
        first = f" {head.splitlines()[0]} ".index(f" {number} ")
        assert first <= line.index("o") < first + len(number)


def test_one_bad_image_of_several_is_named_and_the_others_are_scored(finished_demo, gray, tmp_path):
    upscaled(gray[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("a text")
    lab = Image.new("LAB", (30, 30))
    lab.save(tmp_path / "lab.tiff")
    # The last cannot even be looked for.
    images = [tmp_path / name for name in ("bad.png", "lab.tiff", "good.png", 300 * "x")]
    command = [
        sys.executable,
        ROOT / "src/tools/score.py",
        *images,
        "--figure",
        tmp_path / "out.png",
    ]
    result = subprocess.run(command, cwd=finished_demo, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout.splitlines()[1].startswith(f"{tmp_path}/good.png")
    assert result.stderr.startswith(f"error: cannot read {tmp_path}/bad.png as a picture")
    assert f"; cannot read {tmp_path}/lab.tiff as a picture (" in result.stderr
    assert f"File name too long: '{tmp_path}/xxx" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "out.png").exists()


def noted(pixels):
    return Picture("a", pixels, *as_mnist(pixels, "auto")).notes(128)


def test_what_may_not_be_one_digit_has_a_note(gray):
    assert noted(np.uint8(gray[0])) == []
    assert noted(np.zeros((90, 60), np.uint8)) == ["there is no figure on it"]
    beside = np.concatenate([upscaled(image) for image in gray[:3]], axis=1)
    assert noted(beside) == ["it has 3 separate figures"]
    speck = np.zeros((28, 28), np.uint8)
    speck[3:6, 3:6] = 255
    assert noted(speck) == ["only 9 pixels are left of it"]
    dark = np.full((28, 28), 160, np.uint8)
    dark[8:20, 12:16] = 0
    assert noted(dark) == ["more of it is light than dark; is its digit dark (--polarity)?"]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "ppm", "tga"])
def test_the_same_picture_has_the_same_pixels_in_any_lossless_format(gray, tmp_path, suffix):
    picture = upscaled(gray[0])
    picture.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    (found,) = read_pictures(tmp_path / f"a.{suffix}", "auto")
    assert np.array_equal(found.pixels, as_mnist(np.asarray(picture), "auto")[0])


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "is no file"),
        (".", None, "is no file"),
        ("text.png", b"text", "as a picture"),
        ("picture.gif", b"GIF89a", "as a picture"),
        (
            "program.eps",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "as a pic",
        ),
        ("bomb.png", png_header(12_000, 12_000), "decompression bomb"),
        ("larger.png", png_header(60_000, 60_000), "decompression bomb"),
        ("text.npy", b"text", "as a .npy array"),
        ("pickle.npy", pickle.dumps([1]), "as a .npy array"),
        ("object.npy", np.array([{}], object), "as a .npy array"),
        ("shape.npy", np.zeros((28, 27), np.uint8), r"the shape \(28, 27\)"),
        ("scalar.npy", np.array(0.5), r"the shape \(\)"),
        ("line.npy", np.zeros(785), r"the shape \(785,\)"),
        ("grid.npy", np.zeros((56, 14)), r"the shape \(56, 14\)"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--figure", "figure.jpg"], "cannot write figure.jpg: name a PNG file"),
        (["--figure", "digit.png"], "cannot write digit.png: .* none of the inputs"),
        (["--model", "other.safetensors"], "cannot read the model other.safetensors"),
        (["--model", "digit.png"], "cannot read the model digit.png"),
        (["--data", "nowhere"], "cannot read nowhere/train.safetensors"),
    ],
)
def test_what_cannot_be_used_ends_in_one_line_and_writes_nothing(
    finished_demo, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    for name in ("models", "data", "params.yaml"):
        (tmp_path / name).symlink_to(finished_demo / name)
    upscaled(np.uint8(upscaled_digits()[0][0])).save("digit.png")
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "argv", ["score.py", "digit.png", *options])
    with pytest.raises(UserError, match=message) as raised:
        score.main()
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == before


def test_an_image_in_mnists_form_stays_much_as_it_is_when_scaled_up_and_inverted():
    first = np.asarray(upscaled(np.uint8(upscaled_digits()[0][0])))
    image = as_mnist(first, "auto")[0].reshape(28, 28)
    rows, columns = np.nonzero(image >= 128)
    assert max(np.ptp(rows), np.ptp(columns)) in (18, 19)
    centre = [(image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum() for axis in (0, 1)]
    np.testing.assert_allclose(centre, 14, atol=0.51)
    for side in (64, 196, 1000):
        pixels, inverted = as_mnist(np.asarray(upscaled(image, side)), "auto")
        assert inverted
        assert differing(pixels, image) < 0.3


def drawn(ink, paper):
    """A picture 160 x 120 of a stroke with a bend."""
    picture = np.full((120, 160), paper, np.uint8)
    picture[20:100, 70:82] = ink
    picture[88:100, 70:120] = ink
    return picture


def test_mildly_uneven_light_and_noise_do_not_show():
    expected = as_mnist(drawn(40, 230), "auto")[0]
    y, x = np.mgrid[-1:1:120j, -1:1:160j]
    photo = drawn(40, 230) * (1 - 0.1 * (x**2 + (y - 0.3) ** 2))
    photo += np.random.default_rng(0).normal(0, 4, photo.shape)
    pixels, inverted = as_mnist(photo.clip(0, 255).astype(np.uint8), "auto")
    assert inverted
    assert differing(pixels, expected) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 9), (40, 3)])
def test_ink_of_any_size_fills_the_box(size):
    pixels, _ = as_mnist(np.pad(np.full(size, 255, np.uint8), 12), "auto")
    rows, columns = np.nonzero(pixels.reshape(28, 28) >= 128)
    found = (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert found == tuple(max(1, round(side * 20 / max(size))) for side in size)


@pytest.mark.parametrize("width", [2, 5, 30, 90, 150])
def test_a_thin_pen_on_a_large_sheet_leaves_an_unbroken_line(tmp_path, width):
    sheet = Image.new("L", (2400, 3000), 235)
    ImageDraw.Draw(sheet).ellipse((700, 600, 1700, 2400), outline=30, width=width)
    sheet.save(tmp_path / "sheet.png")
    (picture,) = read_pictures(tmp_path / "sheet.png", "auto")
    ink = picture.pixels.reshape(28, 28) >= 128
    # A closed line keeps inside and outside apart. One pixel wide it has about 50.
    assert ndimage.label(~ink)[1] == 2
    assert 40 < ink.sum() < 120


def test_a_polarity_that_is_given_overrules_what_is_found():
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


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_photo_is_turned_upright(tmp_path, depth):
    gray = drawn(0, 255).astype(depth) * (np.iinfo(depth).max // 255)
    upright, turned = Image.fromarray(gray), Image.fromarray(np.rot90(gray).copy())
    upright.save(tmp_path / "upright.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert Image.open(tmp_path / "turned.png").mode == ("L" if depth == np.uint8 else "I;16")
    (one,), (other,) = (
        read_pictures(tmp_path / f"{name}.png", "auto") for name in ("upright", "turned")
    )
    assert (one.gray == drawn(0, 255)).all()
    assert (one.pixels == other.pixels).all()


# How a picture is laid down for a reader that turns it by its EXIF orientation.
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# File formats, how a pixel is stored, and how the file is written.
FORMS = [("png", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "P", "16 bits")]
FORMS += [("tiff", mode, {}) for mode in ("P", "LA", "RGBA", "CMYK", "YCbCr", "0.0 to 1.0")]
FORMS += [("png", "L", {"compress_level": 0}), ("png", "P", {"optimize": True})]
FORMS += [("tiff", mode, {}) for mode in ("L", "RGB", "16 bits", "16 bits, the higher first")]
FORMS += [("tiff", "L", {"compression": kind}) for kind in ("tiff_lzw", "packbits", "tiff_deflate")]
FORMS += [("webp", mode, {"lossless": True}) for mode in ("RGB", "RGBA")]
# These know no orientation.
PLAIN = [("bmp", "L"), ("bmp", "RGB"), ("gif", "L"), ("ppm", "L"), ("ppm", "RGB"), ("tga", "RGBA")]
PLAIN += [
    ("ppm", "16 bits"),
    ("jp2", "L"),
    ("jp2", "RGB"),
    ("jp2", "16 bits"),
    ("pfm", "0.0 to 1.0"),
]
FORMS += [(suffix, mode, {}) for suffix, mode in PLAIN]


@st.composite
def pictures(draw):
    """A dark or light figure of strokes on an even background, of at least 30 pixels a side."""
    width, height = draw(st.integers(30, 120)), draw(st.integers(30, 120))
    paper, ink = draw(st.sampled_from([(200, 40), (20, 180), (255, 0), (0, 255)]))
    picture = Image.new("L", (width, height), paper)
    inside = st.tuples(st.integers(6, width - 7), st.integers(6, height - 7))
    points = draw(st.lists(inside, min_size=2, max_size=5, unique=True))
    ImageDraw.Draw(picture).line(points, fill=ink, width=draw(st.integers(2, 6)))
    return picture


def stored(picture, mode):
    """A gray picture with its pixels stored in another way."""
    if mode == "0.0 to 1.0":
        return Image.fromarray(np.float32(np.asarray(picture) / 255))
    if not mode.startswith("16 bits"):
        return picture.convert(mode)
    deep = np.asarray(picture).astype(np.uint16) * 257
    if mode == "16 bits":
        return Image.fromarray(deep)
    return Image.frombytes("I;16B", picture.size, deep.byteswap().tobytes())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]}, {form[1]}")
@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck])
@given(pictures(), st.sampled_from([*TURNS]), st.booleans())
def test_a_picture_has_the_same_pixels_in_any_format_depth_encoding_orientation_and_polarity(
    tmp_path, form, picture, orientation, inverted
):
    """And so the same scores; or it is refused."""
    suffix, mode, options = form
    expected = as_mnist(np.asarray(picture), "auto")[0]
    laid = ImageOps.invert(picture) if inverted else picture
    path = tmp_path / f"a.{suffix}"
    if (suffix, mode) in PLAIN:
        stored(laid, mode).save(path, **options)
    else:
        turn = TURNS[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored(laid if turn is None else laid.transpose(turn), mode).save(
            path, exif=exif, **options
        )
    if suffix == "tiff" and orientation > 4:
        with pytest.raises(UserError, match="a TIFF on its side; turn it, or save it as PNG"):
            read_pictures(path, "auto")
        return
    (found,) = read_pictures(path, "auto")
    assert np.array_equal(found.pixels, expected)


# Modes of Pillow's, and what one of its pictures of 8 bits becomes in them.
MODES = {mode: partial(Image.Image.convert, mode=mode) for mode in ("1", "RGBX", "PA", "F")}
MODES |= {
    "LAB": lambda image: Image.merge("LAB", (image, *[Image.new("L", image.size, 128)] * 2)),
    "I of 0 to 65535": lambda image: image.convert("I").point(lambda value: value * 257),
    "F of 0 to 65535": lambda image: image.convert("F").point(lambda value: value * 257 + 0),
    "F below 0": lambda image: image.convert("F").point(lambda value: value / 255 - 0.5),
    "I;16": lambda image: stored(image, "16 bits"),
    "I;16B": lambda image: stored(image, "16 bits, the higher first"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_has_the_pixels_of_8_bits_or_is_refused(tmp_path, mode):
    picture = Image.fromarray(drawn(0, 255) if mode == "1" else drawn(40, 200))
    expected = read_pictures(saved(picture, tmp_path / "a.png"), "auto")[0].pixels
    refused = read = 0
    for suffix in ("tiff", "png", "ppm", "jp2", "spider", "tga", "sgi", "pcx", "dds"):
        try:
            path = saved(MODES[mode](picture), tmp_path / f"b.{suffix}")
        except (OSError, KeyError, ValueError):  # this format has no such mode
            continue
        try:
            assert (read_pictures(path, "auto")[0].pixels == expected).all(), suffix
            read += 1
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused + read
    assert read or mode[:2] in ("LA", "F", "F ")


def saved(picture, path, **options):
    picture.save(path, format="SPIDER" if path.suffix == ".spider" else None, **options)
    return path


def retagged(path, tag, value):
    """Give a little-endian TIFF another value of a tag that is one number of 16 bits."""
    content = path.read_bytes()
    entry = struct.pack("<HHI", tag, 3, 1)
    assert content.count(entry) == 1
    start = content.index(entry) + len(entry)
    path.write_bytes(content[:start] + struct.pack("<H", value) + content[start + 2 :])
    return path


def test_what_pillow_would_read_wrongly_is_refused(tmp_path):
    picture = Image.fromarray(drawn(0, 255))
    deep, path = stored(picture, "16 bits"), tmp_path / "a.tiff"
    cases = {
        "black and white are unknown": [
            lambda: retagged(saved(deep, path), 262, 0),  # 0 is white
            lambda: retagged(saved(deep, path), 258, 12),
            lambda: saved(picture, path, tiffinfo={339: 2}),  # signed
            lambda: saved(Image.fromarray(np.full((30, 30), np.nan, np.float32)), path),
            lambda: saved(deep, tmp_path / "a.png", transparency=0),
        ],
        "a TIFF of 2 pages": [lambda: saved(picture, path, save_all=True, append_images=[picture])],
    }
    for message, makes in cases.items():
        for make in makes:
            with pytest.raises(UserError, match=message):
                read_pictures(make(), "auto")


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    st.binary(min_size=98, max_size=98),
    st.sampled_from(["uint8", "of 0 and 255", "bool", "float16", "float32", "float64", "Fortran"]),
    st.sampled_from([(28, 28), (1, 28, 28), (1, 784), (784,)]),
)
def test_a_binarized_array_has_the_same_pixels_in_any_type_shape_and_order(
    tmp_path, content, kind, shape
):
    image = np.unpackbits(np.frombuffer(content, np.uint8)).reshape(shape)
    arrays = {"of 0 and 255": image * np.uint8(255), "Fortran": np.asfortranarray(image)}
    np.save(tmp_path / "a.npy", arrays[kind] if kind in arrays else image.astype(kind))
    (found,) = read_pictures(tmp_path / "a.npy", "light-on-dark")
    assert np.array_equal(found.pixels >= 128, image.ravel() == 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (28, 28), (56, 56), (90, 60)])
@pytest.mark.parametrize("colour", ["black", "gray", "white", "#ff000000"])
def test_a_picture_of_one_colour_is_blank(tmp_path, size, colour):
    Image.new("RGBA", size, colour).save(tmp_path / "one.png")
    (picture,) = read_pictures(tmp_path / "one.png", "auto")
    assert picture.pixels.max() == 0


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    picture = Image.fromarray(drawn(0, 255))
    picture.save(folder / "whole.png")
    picture.save(folder / "whole.jpg")
    np.save(folder / "whole.npy", np.zeros((2, 28, 28), np.uint8))
    return folder


@settings(max_examples=300, deadline=None)
@given(st.sampled_from((".png", ".jpg", ".npy")), st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(whole_files, suffix, data):
    content = bytearray((whole_files / f"whole{suffix}").read_bytes())
    where = st.integers(0, min(len(content), 400) - 1)
    for place, value in data.draw(st.dictionaries(where, st.integers(0, 255), max_size=20)).items():
        content[place] = value
    path = whole_files / f"damaged{suffix}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert all(picture.pixels.shape == (784,) for picture in read_pictures(path, "auto"))
    except UserError as error:
        assert "\n" not in str(error)


def test_an_image_is_anomalous_above_the_kl_or_the_negative_elbo_or_below_the_reconstruction():
    training = {
        "kl": np.arange(1000.0),
        "reconstruction": np.arange(1000.0),
        "negative_elbo": np.arange(1000.0),
    }
    scores = {
        "kl": np.array([500.0, 999.0, 0.0, 500.0]),
        "reconstruction": np.array([500.0, 2000.0, 500.0, 0.0]),
        "negative_elbo": np.array([500.0, 500.0, 999.0, 0.0]),
    }
    beyond = limits(training, 99.9)
    rows = score.score_rows(scores, training, beyond)
    assert beyond == pytest.approx(
        {"kl": 998.001, "negative_elbo": 998.001, "reconstruction": 0.999}
    )
    found = [row["anomalous_by"] for row in rows]
    assert found == [[], ["kl"], ["negative_elbo"], ["reconstruction"]]
    assert [row["verdict"] for row in rows] == ["ordinary", *["anomalous"] * 3]
    assert rows[0]["kl_percentile"] == pytest.approx(50.1)
