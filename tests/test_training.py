import math

import numpy as np
import pytest
import torch

from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.frames import FrameRecorder
from vae.kernel import default_threads, set_threads
from vae.model import as_module
from vae.network import Network
from vae.params import Architecture
from vae.stream import RandomStream
from vae.training import Start, fit, mean_losses


def begun(architecture, images, settings, pictures=2, interval=3) -> Start:
    """Where a short run begins, 30 of the images being for test."""
    stream = RandomStream(1, settings.batch_size, pictures, interval)
    network = Network(architecture.encoder_sizes, architecture.decoder_sizes)
    stream.initialise(network)
    return Start(network, images, images[:30], stream)


def train(architecture, images, settings, pictures=2, interval=3):
    """A short run; its model, recorder and epochs."""
    start = begun(architecture, images, settings, pictures, interval)
    recorder = FrameRecorder(images[:pictures], levels=16)
    return start.network, recorder, list(fit(start, settings, recorder))


@pytest.fixture
def settings(params):
    return params.train.model_copy(update={"epochs": 2, "batch_size": 16})


def test_the_reported_loss_is_the_mean_over_images_of_each_batch_before_its_step(
    images, settings, small
):
    """A plain loop in PyTorch, with its own unfused Adam, gives the same losses."""
    _, _, epochs = train(small, images, settings)

    start = begun(small, images, settings)
    model, stream, pixels = as_module(start.network), start.stream, torch.from_numpy(images).float()
    stream.frame(2)
    adam = torch.optim.Adam(model.parameters(), lr=0.001, fused=False)
    step = 0

    def loss_of(rows, noise):
        return model.terms(pixels[rows], torch.from_numpy(noise)).sum()

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


def test_weights_and_losses_do_not_depend_on_the_number_of_threads(settings):
    architecture = Architecture(hidden_sizes=(400, 150), latent_size=2)
    images = np.random.default_rng(0).integers(0, 2, (600, 784), dtype=np.uint8)
    settings = settings.model_copy(update={"batch_size": 128})
    runs = []
    for number in (1, 2, 3):
        set_threads(number)
        network, _, epochs = train(architecture, images, settings)
        runs.append((network.values.tobytes(), epochs))
    set_threads(default_threads())
    assert runs[0] == runs[1] == runs[2]


def test_mean_losses_are_exact_whatever_the_order():
    terms = np.array([[1e8, 1.0, -1e8, 1.0], [1.0, 2.0, 3.0, 4.0]])
    assert mean_losses(terms) == mean_losses(terms[:, ::-1]) == (0.5, 2.5)


def test_a_frame_is_taken_before_training_and_after_every_interval_th_batch(
    images, settings, small
):
    _, recorder, _ = train(small, images, settings)
    batches = math.ceil(100 / 16)
    assert len(recorder.frames) == 1 + 2 * math.ceil(batches / 3)


def test_the_committed_parameters_take_the_posts_471_frames(params):
    batches = math.ceil(60000 / params.train.batch_size)
    assert 1 + params.train.epochs * math.ceil(batches / params.figures.interval) == 471


def test_any_other_seed_size_and_interval_works(images, params):
    settings = params.train.model_copy(update={"epochs": 1, "batch_size": 100})
    architecture = Architecture(hidden_sizes=(), latent_size=1, decoder_hidden_sizes=(5, 6, 7))
    _, recorder, (epoch,) = train(architecture, images, settings, pictures=1, interval=1000)
    assert len(recorder.frames) == 2
    assert math.isfinite(epoch.test.negative_elbo)


def test_training_learns(digits, params):
    from vae.data import load_split

    images = load_split(digits, "train").images
    settings = params.train.model_copy(update={"epochs": 5, "batch_size": 32})
    _, _, epochs = train(Architecture(hidden_sizes=(100,), latent_size=5), images, settings)
    losses = [epoch.train.negative_elbo for epoch in epochs]
    assert losses == sorted(losses, reverse=True)
    # The best that pixels drawn independently, each with its own share of ones, can do.
    shares = images.mean(axis=0).clip(1e-9, 1 - 1e-9)
    entropy = -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares)).sum()
    assert losses[-1] < entropy


def interrupted(checkpoint, images, settings, architecture, epochs):
    """A training that is given up after so many epochs, or never when there are none as many."""
    start = begun(architecture, images, settings)
    recorder = FrameRecorder(images[:2], levels=16)
    losses = []
    for epoch in fit(start, settings, recorder, checkpoint=checkpoint):
        losses.append(epoch)
        if epoch.number == epochs:
            break
    return start.network, recorder, losses


@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_a_training_goes_on_from_its_checkpoint_with_the_same_bits(
    tmp_path, images, params, small, epochs
):
    settings = params.train.model_copy(update={"epochs": 4, "batch_size": 16})
    model, recorder, losses = train(small, images, settings)
    interrupted(Checkpoint(tmp_path / "c", "abc"), images, settings, small, epochs)
    again = Checkpoint(tmp_path / "c", "abc")
    resumed, frames, resumed_losses = interrupted(again, images, settings, small, None)
    assert resumed_losses == losses
    assert (resumed.values == model.values).all()
    assert (np.stack(frames.frames) == np.stack(recorder.frames)).all()
    again.remove()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("file", ["state.safetensors", "frames-1.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_checkpoint_is_not_used_and_the_log_says_why(
    tmp_path, images, params, small, file, damage, capsys
):
    settings = params.train.model_copy(update={"epochs": 3, "batch_size": 16})
    interrupted(Checkpoint(tmp_path / "c", "abc"), images, settings, small, 2)
    path = tmp_path / "c" / file
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        flipped = content[:20] + bytes([content[20] ^ 64]) + content[21:]
        path.write_bytes(flipped if damage == "flip" else content[:-10])
    _, _, losses = interrupted(Checkpoint(tmp_path / "c", "abc"), images, settings, small, None)
    assert losses == train(small, images, settings)[2]
    said = capsys.readouterr().out
    gone = (file, damage) == ("state.safetensors", "delete")
    assert said == "" if gone else "starting again" in said


def test_a_checkpoint_of_other_parameters_is_not_used(tmp_path, images, settings, small, capsys):
    interrupted(Checkpoint(tmp_path / "c", "abc"), images, settings, small, 1)
    assert Checkpoint(tmp_path / "c", "abd").load() is None
    assert not (tmp_path / "c").exists()
    assert "(of other parameters, data, code or PyTorch); starting again" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_training_at_its_batch_and_keeps_the_last_checkpoint(
    tmp_path, images, settings, small, capsys
):
    start = begun(small, images, settings)
    network = start.network
    recorder = FrameRecorder(images[:2], levels=16)
    checkpoint = Checkpoint(tmp_path / "c", "abc")
    seen = []

    def spoil(terms):
        seen.append(terms.shape[1])
        if len(seen) == 9:  # after the second epoch's second batch
            network.layers[-1][1][0] = np.nan

    with pytest.raises(
        UserError, match=r"epoch 2, batch 2: the loss is not finite \(reconstruction nan, KL "
    ):
        list(fit(start, settings, recorder, on_batch=spoil, checkpoint=checkpoint))
    assert len(seen) == 9
    assert all(
        np.isfinite(value).all() for value in Checkpoint(tmp_path / "c", "abc").load().values()
    )
    assert "going on after epoch 1" in capsys.readouterr().out


def test_a_test_loss_that_is_not_finite_stops_training_before_its_checkpoint(
    tmp_path, images, settings, small
):
    """The last step of an epoch spoilt the weights, and no batch comes after it."""
    start = begun(small, images, settings)
    network = start.network

    def spoil(terms):
        if terms.shape[1] == len(images):
            network.layers[-1][1][0] = np.nan

    checkpoint = Checkpoint(tmp_path / "c", "abc")
    recorder = FrameRecorder(images[:2], levels=16)
    with pytest.raises(
        UserError,
        match=r"epoch 1, test images: the loss is not finite \(reconstruction nan, .* so training",
    ):
        list(fit(start, settings, recorder, spoil, checkpoint))
    assert not any((tmp_path / "c").iterdir())


def test_a_kl_that_explodes_stops_training_at_its_batch_though_it_is_finite(
    images, settings, small
):
    start = begun(small, images, settings)
    network = start.network

    def spoil(terms):
        if terms.shape[1] == 32:
            network.layers[len(small.hidden_sizes)][1][: small.latent_size] = 1e5

    message = r"epoch 1, batch 2: the KL has exploded \(reconstruction [\d.]+, KL \d{11}.* nats per"
    with pytest.raises(UserError, match=message):
        list(fit(start, settings, on_batch=spoil))
