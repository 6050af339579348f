from itertools import pairwise

import numpy as np
from PIL import Image, ImageSequence

from vae.data import tiled
from vae.frames import grid_axis
from vae.report import figures as draw
from vae.report import plane
from vae.report.score_charts import kl_bars


def test_images_are_tiled_row_by_row():
    images = np.arange(2 * 6 * 784).reshape(2, 6, 28, 28)
    rows = [[np.hstack(frame[:3]), np.hstack(frame[3:])] for frame in images]
    assert np.array_equal(tiled(images.reshape(2, 6, 784), 2), [np.vstack(pair) for pair in rows])


def test_a_gif_is_lossless_counts_epochs_and_holds_its_end(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 28, 56), dtype=np.uint8)
    draw.save_gif(tmp_path / "a.gif", frames, np.array([0, 0.25, 1, 2]), milliseconds=50)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        played = ImageSequence.all_frames(gif)
    shown = [np.array(frame.convert("RGB"))[..., 0] for frame in played]
    assert [frame.info["duration"] for frame in played] == [50, 50, 50, 2000]
    assert all((one[-28:] == two).all() for one, two in zip(shown, frames, strict=True))
    assert all((one[:-28] != two[:-28]).any() for one, two in pairwise(shown))


def test_frames_are_placed_by_the_batches_before_them(params):
    """Of 469 batches per epoch: before training, after the first and then after each tenth."""
    passed = draw.frame_epochs(60_000, params.train, 10)
    batches = np.append(0, (np.arange(10)[:, None] * 469 + np.arange(1, 470, 10)).ravel())
    assert np.abs(passed - batches / 469).max() < 1e-12


def test_the_plane_keeps_its_pixels_and_names_its_coordinates(tmp_path):
    manifold = np.random.default_rng(0).integers(0, 256, (560, 560), dtype=np.uint8)
    figure = plane.manifold_plane(manifold, grid_axis(20, (0.05, 0.95)))
    (axes,) = figure.axes
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [ticks[0].get_text(), ticks[-1].get_text()] == ["-1.64", "1.64"]
    draw.save_figure(tmp_path / "a.png", figure)
    with Image.open(tmp_path / "a.png") as image:
        # The frame of the axes covers their outermost pixels.
        inside = np.array(image.convert("L"))[10 : 10 + 560, 60 : 60 + 560][2:-2, 2:-2]
    assert (inside == manifold[2:-2, 2:-2]).all()


def test_no_label_of_a_narrow_panel_is_cut_off(tmp_path):
    draw.save_figure(tmp_path / "a.png", kl_bars({"20d": [1.0] * 20, "2d": [3.0, 2.0]}))
    with Image.open(tmp_path / "a.png") as image:
        assert (np.array(image.convert("L"))[:, [0, 1, -2, -1]] == 255).all()


def test_a_digits_share_is_highest_where_its_images_lie():
    """One training image at every grid point, in bands of two rows or columns for each digit."""
    axis = grid_axis(20, (0.05, 0.95))
    means = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(400, 2)
    bands = np.arange(20) // 2
    for labels, axes in ((np.repeat(bands, 20), (0, 1)), (np.tile(bands, 20), (1, 0))):
        shares = plane.digit_shares(means, labels, 20, (0.05, 0.95), neighbours=1)
        np.testing.assert_allclose(shares.sum(axis=0), np.ones((140, 140)))
        winners = shares.argmax(axis=0).transpose(axes)
        assert (winners[3::7] == bands[:, None]).all()
