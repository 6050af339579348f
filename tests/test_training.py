import math
from itertools import islice

import numpy as np
import pytest
import torch

import exact
from conftest import bits
from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.data import load_split
from vae.frames import FrameRecorder
from vae.model import build_model
from vae.objective import loss_function
from vae.params import Architecture
from vae.stream import RandomStream
from vae.training import Start, choose_arithmetic, fit, inexact_steps, mean_losses


def begun(architecture, images, settings) -> Start:
    """Where a short run begins, 30 of the images being for test."""
    stream = RandomStream(1, settings.batch_size, reconstructions=2, interval=3)
    model = build_model(architecture)
    stream.initialise(model)
    pixels = torch.from_numpy(images)
    return Start(model, architecture.latent_size, pixels, pixels[:30], stream)


def train(architecture, images, settings, checkpoint=None, epochs=None):
    """A short run, given up after so many epochs, if any; its model, recorder and epochs."""
    start, recorder = begun(architecture, images, settings), FrameRecorder(images[:2], levels=16)
    run = fit(start, settings, recorder, checkpoint=checkpoint)
    return start.model, recorder, list(islice(run, epochs))


@pytest.fixture
def settings(params):
    return params.train.model_copy(update={"epochs": 2, "batch_size": 16})


def test_losses_are_the_means_before_each_step(images, settings, small):
    """A plain loop in float64, by PyTorch's own kernels and Adam, gives the same losses."""
    _, _, epochs = train(small, images, settings)

    start = begun(small, images, settings)
    model, stream = start.model.double(), start.stream
    stream.frame(2)
    adam = torch.optim.Adam(model.parameters(), lr=0.001, fused=False)
    step = 0

    def loss_of(rows, noise):
        logits, kl = model(start.train_images[rows], noise)
        return loss_function(logits, start.train_images[rows], kl)[0]

    for epoch in epochs:
        draws = stream.epoch(100, 2)
        total = 0.0
        for rows in torch.arange(100).split(16):
            step += 1
            # What makes today's Adam that of torch 1.1.
            adam.param_groups[0]["eps"] = 1e-8 / math.sqrt(1 - 0.999**step)
            adam.zero_grad()
            loss = loss_of(draws.order[rows], draws.noise[rows])
            loss.backward()
            adam.step()
            total += loss.item()
        assert epoch.train.negative_elbo == pytest.approx(total / 100, rel=1e-5)
        draws = stream.epoch(30, 2, frames=False)
        with torch.no_grad():
            total = loss_of(draws.order, draws.noise).item()
        assert epoch.test.negative_elbo == pytest.approx(total / 30, rel=1e-5)


def test_mean_losses_are_exact_whatever_the_order():
    terms = torch.tensor([[1e8, 1e-8, -1e8, 2.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    assert mean_losses(terms) == mean_losses(terms.flip(1)) == ((2 + 1e-8) / 4, 2.5)


def test_frames_are_taken_before_training_and_at_every_interval(images, settings, small):
    _, recorder, _ = train(small, images, settings)
    batches = math.ceil(100 / 16)
    assert len(recorder.frames) == 1 + 2 * math.ceil(batches / 3)


def test_the_committed_parameters_take_the_posts_471_frames(params):
    batches = math.ceil(60000 / params.train.batch_size)
    assert 1 + params.train.epochs * math.ceil(batches / params.figures.interval) == 471


def test_training_learns(digits, params):
    images = load_split(digits, "train").images
    settings = params.train.model_copy(update={"epochs": 5, "batch_size": 32})
    _, _, epochs = train(Architecture(hidden_sizes=(100,), latent_size=5), images, settings)
    losses = [epoch.train.negative_elbo for epoch in epochs]
    assert losses == sorted(losses, reverse=True)
    # The best that pixels drawn independently, each with its own share of ones, can do.
    shares = images.mean(axis=0).clip(1e-9, 1 - 1e-9)
    entropy = -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares)).sum()
    assert losses[-1] < entropy


@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_a_training_continues_from_its_checkpoint_with_the_same_bits(
    tmp_path, images, settings, small, epochs
):
    settings = settings.model_copy(update={"epochs": 4})
    model, recorder, losses = train(small, images, settings)
    train(small, images, settings, Checkpoint(tmp_path / "c", "abc"), epochs)
    again = Checkpoint(tmp_path / "c", "abc")
    resumed, frames, resumed_losses = train(small, images, settings, again)
    assert resumed_losses == losses
    assert bits(*resumed.parameters()) == bits(*model.parameters())
    assert (np.stack(frames.frames) == np.stack(recorder.frames)).all()
    again.remove()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("file", ["state.safetensors", "frames-1.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "delete"])
def test_a_damaged_checkpoint_is_named_and_not_used(
    tmp_path, images, settings, small, file, damage, capsys
):
    settings = settings.model_copy(update={"epochs": 3})
    train(small, images, settings, Checkpoint(tmp_path / "c", "abc"), epochs=2)
    path = tmp_path / "c" / file
    path.unlink() if damage == "delete" else path.write_bytes(path.read_bytes()[:-10])
    found = train(small, images, settings, Checkpoint(tmp_path / "c", "abc"))
    assert found[2] == train(small, images, settings)[2]
    said = capsys.readouterr().out
    gone = (file, damage) == ("state.safetensors", "delete")
    assert said == "" if gone else "starting again" in said


def test_a_checkpoint_of_other_parameters_is_not_used(tmp_path, images, settings, small, capsys):
    train(small, images, settings, Checkpoint(tmp_path / "c", "abc"), epochs=1)
    assert Checkpoint(tmp_path / "c", "abd").load() is None
    assert not (tmp_path / "c").exists()
    assert "(of other parameters, data, code or PyTorch); starting again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("batch", "layer", "value", "message", "kept"),
    [
        (9, "decoder", math.nan, r"epoch 2, batch 2: the loss .* \(reconstruction nan", 1),
        # After the last step of an epoch no batch comes.
        (7, "decoder", math.nan, r"epoch 1, test images: the loss is not finite", None),
        (2, "encoder", 1e5, r"epoch 1, batch 2: the KL has exploded \(.*KL \d{11}", None),
    ],
)
def test_a_loss_that_is_not_finite_or_explodes_stops_training(
    tmp_path, images, settings, small, batch, layer, value, message, kept
):
    start = begun(small, images, settings)
    seen = []

    def spoil(terms):
        seen.append(terms)
        if len(seen) == batch:
            getattr(start.model, layer)[-1].bias.data[: small.latent_size] = value

    checkpoint = Checkpoint(tmp_path / "c", "abc")
    with pytest.raises(UserError, match=message):
        list(fit(start, settings, FrameRecorder(images[:2], 16), spoil, checkpoint))
    assert len(seen) == batch
    state = checkpoint.load()
    assert kept == (state and len(state["losses"]))
    assert all(value.isfinite().all() for value in (state or {}).values())


def test_torchs_kernels_train_within_rounding_of_exact(
    images, settings, small, restored_modes, capsys
):
    one = settings.model_copy(update={"epochs": 1, "beta": 0.5})
    model, _, (epoch,) = train(small, images, one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "default_threads", lambda: 2)  # as under a container's quota
        choose_arithmetic(one.model_copy(update={"arithmetic": "torch"}))
    assert torch.get_num_threads() == 2
    other, _, (theirs,) = train(small, images, one)
    assert bits(*other.parameters()) != bits(*model.parameters())
    for ours, near in zip(model.parameters(), other.parameters(), strict=True):
        # Adam divides by the gradient's size, so that rounding of a tiny gradient is a whole step.
        torch.testing.assert_close(near, ours, rtol=0, atol=2e-4)
    np.testing.assert_allclose([*theirs.test], [*epoch.test], rtol=1e-5)
    assert capsys.readouterr().out.count("the bits are this machine's") == 1
    choose_arithmetic(one)
    again = train(small, images, one)[0]
    assert bits(*again.parameters()) == bits(*model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line(settings):
    with pytest.raises(UserError, match=r"^params.yaml: train.device is cuda, and .*; use cpu"):
        choose_arithmetic(settings.model_copy(update={"device": "cuda"}))


def test_a_training_names_the_steps_operations_that_are_inexact(images, settings, small):
    start = begun(small, images, settings)
    before = bits(*start.model.parameters())
    assert inexact_steps(start, settings) == []
    start.model.encoder[1] = torch.nn.Tanh()
    assert inexact_steps(start, settings) == ["aten.tanh.default", "aten.tanh_backward.default"]
    assert bits(*start.model.parameters()) == before
    assert all(value.grad is None for value in start.model.parameters())
