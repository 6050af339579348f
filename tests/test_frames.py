import numpy as np
import pytest
import torch
from scipy.stats import norm

from conftest import model_of
from exact.functional import sigmoid
from vae.cli import UserError
from vae.frames import FrameRecorder, grid_axis, latent_grid, load_frames, quantized


def test_the_grids_columns_are_the_first_latent_coordinate():
    axis = grid_axis(20, (0.05, 0.95))
    np.testing.assert_allclose(axis, norm.ppf(np.linspace(0.05, 0.95, 20)), rtol=1e-12)
    grid = latent_grid(axis).reshape(20, 20, 2)
    np.testing.assert_allclose(grid[3, 17], [axis[17], axis[3]], rtol=1e-6)


def test_frames_read_back_as_gray_values_and_their_bytes_repeat(tmp_path, small, images):
    model = model_of(small)
    grid = latent_grid(grid_axis(3, (0.1, 0.9)))
    recorder = FrameRecorder(images[:4], 16, grid)
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        recorder.record(model, noise)
    for name in ("a.arrow", "b.arrow"):
        recorder.save(tmp_path / name, recorder.frames)
    assert load_frames(tmp_path / "a.arrow", "reconstructions").shape == (2, 4, 784)
    manifold = load_frames(tmp_path / "a.arrow", "manifold")
    assert manifold.shape == (2, 9, 784)
    exact = 255 * sigmoid(model.decode(torch.from_numpy(grid))).detach().numpy()
    assert np.abs(manifold[1] - exact).max() <= 255 / 15 / 2 + 0.5
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_gray_levels_are_rounded_to_the_nearest():
    shares = np.array([1e-9, 0.49 / 15, 0.51 / 15, 1 - 1e-9], np.float32)
    assert quantized(shares, 16).tolist() == [0, 0, 1, 15]
    assert quantized(shares).tolist()[-1] == 255


@pytest.mark.parametrize("content", ["missing", "damaged", "without a grid"])
def test_frames_that_cannot_be_read_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "frames.arrow"
    if content == "damaged":
        path.write_bytes(b"PK damaged")
    elif content == "without a grid":
        FrameRecorder(np.zeros((1, 784), np.uint8), 16).save(path, [np.zeros((1, 784), np.uint8)])
        assert load_frames(path, "reconstructions").shape == (1, 1, 784)
    with pytest.raises(UserError, match="dvc repro"):
        load_frames(path, "manifold")
