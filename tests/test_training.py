import math

from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.frames import FrameRecorder
from vae.gradient import backward
from vae.model import BernoulliVAE
from vae.optimizer import Adam
from vae.params import Architecture
from vae.stream import RandomStream
from vae.training import Start, fit, loss_terms, mean_losses

import pytest
import torch


def train(architecture, images, settings, pictures=2, interval=3):
    """A short run; its model, recorder and epochs."""
    stream = RandomStream(1, settings.batch_size, pictures, interval)
    model = BernoulliVAE(architecture)
    stream.initialise(model)
    recorder = FrameRecorder(images[:pictures], levels=16)
    return model, recorder, list(fit(Start(model, images, images[:30], stream), settings, recorder))


@pytest.fixture
def settings(params):
    return params.train.model_copy(update={"epochs": 2, "batch_size": 16})


def test_the_reported_loss_is_the_mean_over_images_of_each_batch_before_its_step(
    images, settings, small
):
    """A plain loop, with torch's own unfused Adam, gives the same losses."""
    _, _, epochs = train(small, images, settings)

    stream = RandomStream(1, 16, 2, 3)
    model = BernoulliVAE(small)
    stream.initialise(model)
    stream.frame(2)
    adam = torch.optim.Adam(model.parameters(), lr=0.001, fused=False)
    step = 0
    for epoch in epochs:
        draws = stream.training_epoch(100, 2)
        total = 0.0
        for rows in torch.arange(100).split(16):
            step += 1
            # What makes today's Adam that of torch 1.1.
            adam.param_groups[0]["eps"] = 1e-8 / math.sqrt(1 - 0.999**step)
            adam.zero_grad()
            loss = loss_terms(model, images[draws.order[rows]].float(), draws.noise[rows]).sum()
            loss.backward()
            adam.step()
            total += loss.item()
        assert epoch.train.negative_elbo == pytest.approx(total / 100, rel=1e-5)
        draws = stream.test_pass(30, 2)
        with torch.no_grad():
            total = loss_terms(model, images[:30][draws.order].float(), draws.noise).sum().item()
        assert epoch.test.negative_elbo == pytest.approx(total / 30, rel=1e-5)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(hidden_sizes=(30, 20), latent_size=3),
        Architecture(hidden_sizes=(784,), latent_size=784),
        Architecture(hidden_sizes=(), latent_size=2, decoder_hidden_sizes=(5, 6, 7)),
        Architecture(hidden_sizes=(4,), latent_size=1, decoder_hidden_sizes=()),
    ],
)
def test_the_written_out_gradient_is_that_of_autograd(architecture, images):
    model = BernoulliVAE(architecture)
    RandomStream(1, 16, 1, 1).initialise(model)
    model.double()
    batch = images[:16].double()
    noise = torch.randn(16, architecture.latent_size, generator=torch.manual_seed(0)).double()
    terms = loss_terms(model, batch, noise)
    expected = torch.autograd.grad(terms.sum(), list(model.parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    torch.testing.assert_close(backward(model, batch, noise), terms.detach())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_adam_makes_the_steps_of_torch_1_1(settings):
    """m / (sqrt(v) + eps) scaled by sqrt(1 - b2^t) / (1 - b1^t), on gradients as small as epsilon."""
    b1, b2 = settings.adam_betas
    layer = torch.nn.Linear(1, 1).double()
    layer.weight.data.zero_()
    adam = Adam(layer, settings)
    m = v = expected = 0.0
    for step, gradient in enumerate((3e-8, -1e-8, 2e-7, 1e-9), start=1):
        layer.weight.grad.fill_(gradient)
        adam.step()
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        scale = math.sqrt(1 - b2**step) / (1 - b1**step)
        expected -= 0.001 * scale * m / (math.sqrt(v) + 1e-8)
        assert layer.weight.item() == pytest.approx(expected, rel=1e-9)


def test_weights_and_losses_do_not_depend_on_the_number_of_threads(settings):
    architecture = Architecture(hidden_sizes=(400, 150), latent_size=2)
    images = torch.randint(0, 2, (600, 784), dtype=torch.uint8, generator=torch.manual_seed(0))
    settings = settings.model_copy(update={"batch_size": 128})
    threads = torch.get_num_threads()
    try:
        runs = []
        for number in (1, 2):
            torch.set_num_threads(number)
            model, _, epochs = train(architecture, images, settings)
            runs.append(([*model.state_dict().values()], epochs))
    finally:
        torch.set_num_threads(threads)
    (one, one_epochs), (two, two_epochs) = runs
    assert one_epochs == two_epochs
    assert all(map(torch.equal, one, two))


def test_mean_losses_are_exact_whatever_the_order():
    terms = torch.tensor([[1e8, 1.0, -1e8, 1.0], [1.0, 2.0, 3.0, 4.0]])
    assert mean_losses(terms) == mean_losses(terms.flip(1)) == (0.5, 2.5)


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

    images = torch.from_numpy(load_split(digits, "train").images)
    settings = params.train.model_copy(update={"epochs": 5, "batch_size": 32})
    _, _, epochs = train(Architecture(hidden_sizes=(100,), latent_size=5), images, settings)
    losses = [epoch.train.negative_elbo for epoch in epochs]
    assert losses == sorted(losses, reverse=True)
    # The best that pixels drawn independently, each with its own share of ones, can do.
    shares = images.double().mean(dim=0).clamp(1e-9, 1 - 1e-9)
    entropy = -(shares * shares.log() + (1 - shares) * (1 - shares).log()).sum().item()
    assert losses[-1] < entropy


def interrupted(checkpoint, images, settings, architecture, epochs):
    """A training that is given up after so many epochs, or never when there are none as many."""
    stream = RandomStream(1, settings.batch_size, 2, 3)
    model = BernoulliVAE(architecture)
    stream.initialise(model)
    recorder = FrameRecorder(images[:2], levels=16)
    losses = []
    for epoch in fit(
        Start(model, images, images[:30], stream), settings, recorder, checkpoint=checkpoint
    ):
        losses.append(epoch)
        if epoch.number == epochs:
            break
    return model, recorder, losses


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
    assert all(map(torch.equal, resumed.state_dict().values(), model.state_dict().values()))
    assert torch.equal(torch.stack(frames.frames), torch.stack(recorder.frames))
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
    assert "of other parameters, data, code or PyTorch; starting again" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_training_at_its_batch_and_keeps_the_last_checkpoint(
    tmp_path, images, settings, small, capsys
):
    stream = RandomStream(1, 16, 2, 3)
    model = BernoulliVAE(small)
    stream.initialise(model)
    recorder = FrameRecorder(images[:2], levels=16)
    checkpoint = Checkpoint(tmp_path / "c", "abc")
    seen = []

    def spoil(terms):
        seen.append(terms.shape[1])
        if len(seen) == 9:  # after the second epoch's second batch
            model.decoder[-1].bias.data[0] = torch.nan

    start = Start(model, images, images[:30], stream)
    with pytest.raises(
        UserError, match=r"epoch 2, batch 2: the loss is not finite \(reconstruction nan, KL "
    ):
        list(fit(start, settings, recorder, on_batch=spoil, checkpoint=checkpoint))
    assert len(seen) == 9
    assert all(
        value.isfinite().all() for value in Checkpoint(tmp_path / "c", "abc").load().values()
    )
    assert "going on after epoch 1" in capsys.readouterr().out


def test_a_test_loss_that_is_not_finite_stops_training_before_its_checkpoint(
    tmp_path, images, settings, small
):
    """The last step of an epoch spoilt the weights, and no batch comes after it."""
    stream = RandomStream(1, 16, 2, 3)
    model = BernoulliVAE(small)
    stream.initialise(model)

    def spoil(terms):
        if terms.shape[1] == len(images):
            model.decoder[-1].bias.data[0] = torch.nan

    checkpoint = Checkpoint(tmp_path / "c", "abc")
    recorder = FrameRecorder(images[:2], levels=16)
    with pytest.raises(
        UserError, match=r"epoch 1: a loss is not finite .*nan, .* so training stops"
    ):
        list(fit(Start(model, images, images[:30], stream), settings, recorder, spoil, checkpoint))
    assert not (tmp_path / "c").exists()


def test_a_kl_that_explodes_stops_training_at_its_batch_though_it_is_finite(
    images, settings, small
):
    stream = RandomStream(1, 16, 2, 3)
    model = BernoulliVAE(small)
    stream.initialise(model)

    def spoil(terms):
        if terms.shape[1] == 32:
            model.encoder[-1].bias.data[: small.latent_size] = 1e5

    message = r"epoch 1, batch 2: the KL has exploded \(reconstruction [\d.]+, KL \d{11}.* nats per image\)"
    with pytest.raises(UserError, match=message):
        list(fit(Start(model, images, images[:30], stream), settings, on_batch=spoil))
