"""The training loop."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.data import Split
from vae.frames import FrameRecorder
from vae.network import Network, Trainer
from vae.params import Figures, Model, Train
from vae.stream import Draws, RandomStream
from vae.terms import kl_terms, latent_samples, reconstruction_terms

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
        """Return the epoch as a row of the losses CSV, in its order of columns."""
        return {
            "epoch": self.number,
            "train_loss": self.train.negative_elbo,
            "test_loss": self.test.negative_elbo,
            "train_reconstruction": self.train.reconstruction,
            "train_kl": self.train.kl,
            "test_reconstruction": self.test.reconstruction,
            "test_kl": self.test.kl,
        }


class Start(NamedTuple):
    """Where a training begins: fresh values, images `(images, 784)` uint8, the random stream."""

    network: Network
    train_images: np.ndarray
    test_images: np.ndarray
    stream: RandomStream


def prepare(
    seed: int, figures: Figures, settings: Train, architecture: Model, train: Split, test: Split
) -> Start:
    """Bring the author's random stream to this model's training, and draw its initial values."""
    stream = RandomStream(seed, settings.batch_size, len(figures.images), figures.interval)
    if architecture.preceded_by:
        before = architecture.preceded_by
        first = Network(before.encoder_sizes, before.decoder_sizes)
        stream.skip_run(first, settings.epochs, len(train.images), len(test.images))
    network = Network(architecture.encoder_sizes, architecture.decoder_sizes)
    stream.initialise(network)
    return Start(network, train.images, test.images, stream)


def make_trainer(network: Network, settings: Train, images: np.ndarray) -> Trainer:
    """Return what makes the steps, on the processor or on CUDA. Raises UserError without CUDA."""
    if settings.device == "cpu":
        return Trainer(network, min(settings.batch_size, len(images)), settings)
    # PyTorch takes seconds to import, and the processor needs none of it here.
    from vae.cuda import CudaTrainer

    return CudaTrainer(network, settings)


def fit(
    start: Start,
    settings: Train,
    recorder: FrameRecorder | None = None,
    on_batch: Callable[[np.ndarray], None] = lambda losses: None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train the network in place, an epoch each time the iterator is advanced.

    `recorder` takes a frame before training and after every `stream.interval`-th batch; without
    one, the stream still draws what the frames would need. `on_batch` is given reconstruction and
    KL of the epoch's images so far, `(2, images)` nats.

    A `checkpoint`, which needs a recorder, is written after each epoch; if it holds any, they are
    given again and training goes on after them.

    Raises UserError when a loss is not finite or the KL has exploded, at that batch.
    """
    network, train_images, test_images, stream = start
    trainer = make_trainer(network, settings, train_images)
    first_frame = stream.frame(network.latent)
    if recorder:
        recorder.record(network, first_frame)
    losses = []
    if checkpoint and (state := checkpoint.load()):
        trainer.restore(state)
        stream.generator.restore(state["generator"])
        recorder.frames = list(state["frames"])
        losses = state["losses"].tolist()
        for number, row in enumerate(losses, start=1):
            yield Epoch(number, Losses(*row[:2]), Losses(*row[2:]))
    for number in range(len(losses) + 1, settings.epochs + 1):
        kept = len(recorder.frames) if recorder and losses else 0
        draws = stream.epoch(len(train_images), network.latent)
        terms = np.empty((2, len(train_images)))
        for batch, first in enumerate(range(0, len(train_images), settings.batch_size)):
            rows = slice(first, min(first + settings.batch_size, len(train_images)))
            terms[:, rows] = trainer.step(train_images, draws.order[rows], draws.noise[rows])
            _check(*terms[:, rows].mean(axis=1).tolist(), f"epoch {number}, batch {batch}")
            if recorder and batch % stream.interval == 0:
                trainer.write_back()
                recorder.record(network, draws.frame_noise[batch // stream.interval])
            on_batch(terms[:, : rows.stop])
        trainer.write_back()
        draws = stream.epoch(len(test_images), network.latent, frames=False)
        epoch = Epoch(number, mean_losses(terms), evaluate(network, test_images, draws))
        _check(*epoch.test, f"epoch {number}, test images")
        losses.append([*epoch.train, *epoch.test])
        if checkpoint:
            state = {**trainer.state(), "generator": stream.generator.state()}
            checkpoint.save({**state, "losses": np.array(losses)}, recorder.frames[kept:])
        yield epoch


def _check(reconstruction: float, kl: float, where: str) -> None:
    """Raise UserError unless mean losses are finite, and the KL at most `MOST_KL`."""
    if not (math.isfinite(reconstruction) and kl <= MOST_KL):
        problem = "the KL has exploded" if MOST_KL < kl < math.inf else "the loss is not finite"
        raise UserError(
            f"{where}: {problem} (reconstruction {reconstruction}, KL {kl} nats per image), so "
            "training stops; a lower train.learning_rate may help"
        )


def evaluate(network: Network, images: np.ndarray, draws: Draws, rows: int = 1000) -> Losses:
    """Mean losses over `images` `(images, 784)` uint8, with one posterior sample each.

    They go through the network `rows` at a time, which saves memory and changes no bit.
    """
    parts = []
    for first in range(0, len(images), rows):
        batch = images[draws.order[first : first + rows]]
        mean, log_variance = network.encode(batch)
        latent = latent_samples(mean, log_variance, draws.noise[first : first + rows])
        likelihood = reconstruction_terms(network.decode(latent), batch)
        parts.append(np.stack((likelihood, kl_terms(mean, log_variance))))
    return mean_losses(np.concatenate(parts, axis=1))


def mean_losses(terms: np.ndarray) -> Losses:
    """Means of reconstruction and KL `(2, images)`, from exact sums: their order cannot show."""
    return Losses(*(math.fsum(row) / len(row) for row in terms))
