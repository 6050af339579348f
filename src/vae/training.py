"""The training loop."""

import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vae import objective
from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.data import Split
from vae.frames import FrameRecorder
from vae.gradient import backward
from vae.model import BernoulliVAE
from vae.optimizer import Adam
from vae.params import Figures, Model, Train
from vae.stream import Draws, RandomStream

import torch
from torch import Tensor

# In nats per image. With learning rates of up to 0.1 trainings on MNIST recover from 600,000 in
# their first steps; the two seen to survive more than 1e9 ended worse than pixels drawn
# independently.
MOST_KL = 1e9


class Losses(NamedTuple):
    """Means over the images, in nats per image."""

    reconstruction: float
    kl: float

    @property
    def negative_elbo(self) -> float:
        return self.reconstruction + self.kl


class Epoch(NamedTuple):
    """What an epoch came to: `train` while it ran, `test` after it."""

    number: int
    train: Losses
    test: Losses

    def row(self) -> dict[str, float]:
        """The epoch as a row of the losses CSV, in its order of columns."""
        return {
            "epoch": self.number,
            "train_loss": self.train.negative_elbo,
            "test_loss": self.test.negative_elbo,
            "train_reconstruction": self.train.reconstruction,
            "train_kl": self.train.kl,
            "test_reconstruction": self.test.reconstruction,
            "test_kl": self.test.kl,
        }


def choose_device(name: str) -> torch.device:
    """The device that train.device names; auto is CUDA where there is one. Raises UserError.

    On CUDA, only algorithms that repeat bit for bit are used from here on.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError(
            "params.yaml: train.device is cuda, and torch finds no CUDA device; use auto or cpu"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    # Which cuBLAS reads when it starts: a workspace of fixed size for each stream.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda")


class Start(NamedTuple):
    """Where a training begins: a fresh model, the images, `(images, 784)` uint8 of 0 and 1, on its
    device, where they stay, and the random stream."""

    model: BernoulliVAE
    train_images: Tensor
    test_images: Tensor
    stream: RandomStream


def begin(
    seed: int, figures: Figures, settings: Train, architecture: Model, train: Split, test: Split
) -> Start:
    """Bring the author's random stream to where this model's training begins, and draw its
    weights."""
    # Adam's moments of pixels that are never 1 fade into subnormal numbers, which cost a CPU a
    # third of its speed and change no weight. Set first: threads take the setting over when they
    # start.
    torch.set_flush_denormal(True)
    device = choose_device(settings.device)
    stream = RandomStream(seed, settings.batch_size, len(figures.images), figures.interval)
    if architecture.preceded_by:
        before = BernoulliVAE(architecture.preceded_by)
        stream.skip_run(before, settings.epochs, len(train.images), len(test.images))
    model = BernoulliVAE(architecture)
    stream.initialise(model)
    train_images, test_images = (
        torch.from_numpy(split.images).to(device) for split in (train, test)
    )
    return Start(model.to(device), train_images, test_images, stream)


def fit(
    start: Start,
    settings: Train,
    recorder: FrameRecorder | None = None,
    on_batch: Callable[[Tensor], None] = lambda losses: None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train the model in place, an epoch each time the iterator is advanced.

    `recorder` takes a frame before training and after every `stream.interval`-th batch; without
    one, the stream still draws what the frames would need. `on_batch` is given the reconstruction
    and KL of the epoch's images so far, `(2, images)`, on the device: reading them waits for the
    device.

    A `checkpoint`, which needs a recorder, is written after each epoch; if it holds any, they are
    given again and training goes on after them.

    Raises UserError when a loss is not finite or the KL has exploded: on the CPU at that batch; on
    CUDA, where looking would wait for the device, at the end of its epoch.
    """
    model, train_images, test_images, stream = start
    adam = Adam(model, settings)
    device = train_images.device
    first_frame = stream.frame(model.latent_size).to(device)
    if recorder:
        recorder.record(model, first_frame)
    kept = done = 0
    if checkpoint and (state := checkpoint.load()):
        adam.restore(state)
        stream.generator.set_state(state["generator"])
        recorder.frames.clear()
        for frame in state["frames"]:
            recorder.keep(frame)
        kept, done = len(recorder.frames), len(checkpoint.losses)
        for number, losses in enumerate(checkpoint.losses.tolist(), start=1):
            yield Epoch(number, Losses(*losses[:2]), Losses(*losses[2:]))
    for number in range(done + 1, settings.epochs + 1):
        draws = stream.training_epoch(len(train_images), model.latent_size).to(device)
        terms = torch.empty(2, len(train_images), device=device)
        for batch, (images, noise, rows) in enumerate(
            _batches(train_images, draws, settings.batch_size)
        ):
            terms[:, rows] = backward(model, images, noise)
            if device.type == "cpu":
                _check(terms[:, rows], number, batch)
            adam.step()
            if recorder and batch % stream.interval == 0:
                recorder.record(model, draws.frame_noise[batch // stream.interval])
            on_batch(terms[:, : rows.stop])
        if device.type != "cpu":
            for batch, parts in enumerate(terms.cpu().split(settings.batch_size, dim=1)):
                _check(parts, number, batch)
        draws = stream.test_pass(len(test_images), model.latent_size).to(device)
        epoch = Epoch(
            number, mean_losses(terms), evaluate(model, test_images, draws, settings.batch_size)
        )
        if checkpoint:
            state = {**adam.state(), "generator": stream.generator.get_state()}
            checkpoint.save([*epoch.train, *epoch.test], state, recorder.frames[kept:])
            kept = len(recorder.frames)
        yield epoch


def loss_terms(model: BernoulliVAE, images: Tensor, noise: Tensor) -> Tensor:
    """Reconstruction and KL of each image, `(2, batch)` nats, with one posterior sample each."""
    posterior = model.encode(images)
    logits = model.decode(posterior.sample(noise))
    return objective.terms(logits, posterior, images)


def _check(terms: Tensor, epoch: int, batch: int) -> None:
    """Raise UserError unless a batch's terms, `(2, batch)`, are finite and its KL at most
    `MOST_KL`."""
    reconstruction, kl = terms.mean(dim=1).tolist()
    if not (math.isfinite(reconstruction) and kl <= MOST_KL):
        problem = "the KL has exploded" if MOST_KL < kl < math.inf else "the loss is not finite"
        raise UserError(
            f"epoch {epoch}, batch {batch}: {problem} (reconstruction {reconstruction}, KL {kl} "
            "nats per image), so training stops; a lower train.learning_rate may help"
        )


@torch.no_grad()
def evaluate(model: BernoulliVAE, images: Tensor, draws: Draws, batch_size: int) -> Losses:
    """Mean losses of `model` over `images`, `(images, 784)` uint8, with one posterior sample
    each."""
    batches = _batches(images, draws, batch_size)
    return mean_losses(
        torch.cat([loss_terms(model, batch, noise) for batch, noise, _ in batches], dim=1)
    )


def mean_losses(terms: Tensor) -> Losses:
    """Means of reconstruction and KL, `(2, images)`. Sums exactly, so that no thread count
    shows."""
    return Losses(*(math.fsum(row) / len(row) for row in terms.tolist()))


def _batches(images: Tensor, draws: Draws, size: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Images as floats, noise, and their rows among the epoch's, batch by batch."""
    for start in range(0, len(images), size):
        rows = slice(start, min(start + size, len(images)))
        yield images.index_select(0, draws.order[rows]).float(), draws.noise[rows], rows
