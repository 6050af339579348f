"""The training loop: `fit` calls `train` and `test` for each epoch, as the post does."""

import copy
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import exact
from vae.checkpoint import Checkpoint
from vae.cli import UserError
from vae.data import Split
from vae.frames import FrameRecorder
from vae.model import VAE, build_model
from vae.objective import loss_function
from vae.params import Figures, Model, Params, Train
from vae.stream import Draws, RandomStream

# In nats per image. Trainings on MNIST recover from 600,000 in their first steps; the two seen to
# survive more than 1e9 ended worse than pixels drawn independently.
MOST_KL = 1e9


class Losses(NamedTuple):
    """Means over the images, in nats per image."""

    reconstruction: float
    kl: float

    @property
    def negative_elbo(self) -> float:
        return self.reconstruction + self.kl


class Epoch(NamedTuple):
    """An epoch's losses: `train` while it ran, `test` after it."""

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
    """Where a training begins: initial values, images `(n, 784)` uint8, the random stream."""

    model: VAE
    latent_size: int
    train_images: Tensor
    test_images: Tensor
    stream: RandomStream


def check_training(params: Params) -> None:
    """Raise UserError where the device or a model of these parameters cannot be used."""
    check_device(params.train)
    for architecture in (params.train_20d, params.train_2d):
        build_model(architecture)


def prepare(
    seed: int, figures: Figures, settings: Train, architecture: Model, train: Split, test: Split
) -> Start:
    """Advance the author's random stream to this model's training, and draw its initial values.

    Also sets who computes, as `choose_arithmetic`. Raises UserError as `check_training`.
    """
    choose_arithmetic(settings)
    stream = RandomStream(seed, settings.batch_size, len(figures.images), figures.interval)
    if before := architecture.preceded_by:
        counts = len(train.images), len(test.images)
        stream.skip_run(build_model(before), before.latent_size, settings.epochs, *counts)
    # What a class of one's own draws by itself is to repeat as well.
    torch.manual_seed(seed)
    model = build_model(architecture)
    stream.initialise(model)
    images = (torch.from_numpy(split.images).to(settings.device) for split in (train, test))
    return Start(model.to(settings.device), architecture.latent_size, *images, stream)


def computes_exactly(settings: Train) -> bool:
    """Say whether src/exact computes, and not PyTorch's own kernels."""
    return settings.arithmetic == "exact" and settings.device == "cpu"


def check_device(settings: Train) -> None:
    """Raise UserError where there is no device as the settings name."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: train.device is cuda, and torch finds no device; use cpu")


def choose_arithmetic(settings: Train) -> None:
    """Let src/exact compute, or PyTorch's own kernels on the settings' device, deterministically.

    Raises UserError where there is no such device.
    """
    check_device(settings)
    if computes_exactly(settings):
        exact.set_arithmetic("exact")
        # What is left to PyTorch is small, and its threads would wait for work beside ours.
        torch.set_num_threads(1)
        return
    exact.set_arithmetic("torch")
    # PyTorch's own number ignores a container's quota.
    torch.set_num_threads(exact.default_threads())
    # Which cuBLAS reads when it starts: a workspace of fixed size for each stream.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Adam's moments of pixels that are never 1 become subnormal numbers, which cost a third.
    torch.set_flush_denormal(True)
    by = f"training by PyTorch's kernels ({settings.device})"
    print(f"{by}: the bits are this machine's, not those of dvc.lock", flush=True)


def fit(
    start: Start,
    settings: Train,
    recorder: FrameRecorder | None = None,
    on_batch: Callable[[Tensor], None] = lambda terms: None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train the model in place, an epoch each time the iterator is advanced.

    `recorder` takes a frame before training and after every `stream.interval`-th batch; without
    one, the stream still draws what the frames would need. `on_batch` is called with reconstruction
    and KL of the epoch's images so far, `(2, images)` nats.

    A `checkpoint`, which needs a recorder, is written after each epoch; if it holds any, they are
    yielded again and training continues after them.

    Raises UserError when a loss is not finite or the KL has exploded, at that batch.
    """
    model, latent_size, train_images, test_images, stream = start
    adam = exact.optim.Adam(
        model.parameters(), settings.learning_rate, settings.adam_betas, settings.adam_epsilon
    )
    # No smaller loss of a batch can have a KL of `MOST_KL`, or be infinite or NaN.
    suspicious = MOST_KL * min(settings.beta, 1)
    first_frame = stream.frame(latent_size)
    if recorder:
        recorder.record(model, first_frame)
    losses = resume(checkpoint, model, adam, stream, recorder) if checkpoint else []
    for number, row in enumerate(losses, start=1):
        yield Epoch(number, Losses(*row[:2]), Losses(*row[2:]))
    for number in range(len(losses) + 1, settings.epochs + 1):
        kept = len(recorder.frames) if recorder and losses else 0
        draws = stream.epoch(len(train_images), latent_size)
        for batch, (loss, terms) in enumerate(train(model, adam, train_images, draws, settings)):
            if not loss < suspicious:
                last = terms[:, batch * settings.batch_size :]
                _check(*last.mean(dim=1).tolist(), f"epoch {number}, batch {batch}")
            if recorder and batch % stream.interval == 0:
                recorder.record(model, draws.frame_noise[batch // stream.interval])
                model.train()
            on_batch(terms)
        if recorder:  # with noise that is drawn already: the author drew none here
            recorder.record(model, draws.frame_noise[-1], end=True)
        draws = stream.epoch(len(test_images), latent_size, frames=False)
        epoch = Epoch(number, mean_losses(terms), test(model, test_images, draws))
        _check(*epoch.test, f"epoch {number}, test images")
        losses.append([*epoch.train, *epoch.test])
        if checkpoint:
            state = training_state(model, adam, stream)
            state["losses"] = torch.tensor(losses, dtype=torch.float64)
            checkpoint.save(state, recorder.frames[kept:], recorder.ends[-1:])
        yield epoch


def train(
    model: VAE, optimizer: torch.optim.Optimizer, images: Tensor, draws: Draws, settings: Train
) -> Iterator[tuple[float, Tensor]]:
    """Train for one epoch over `images` `(n, 784)`, a batch each time the iterator is advanced.

    Yields the batch's summed loss before its step, and `(2, images)` nats: reconstruction and KL of
    the epoch's images so far.
    """
    model.train()
    terms = torch.empty(2, len(images), dtype=torch.float64, device=images.device)
    size = settings.batch_size
    order, noise = draws.order.to(images.device), draws.noise.to(images.device)
    batches = zip(order.split(size), noise.split(size), terms.split(size, dim=1), strict=True)
    for number, (chosen, sample, own_terms) in enumerate(batches, start=1):
        data = images.index_select(0, chosen)
        optimizer.zero_grad()
        logits, kl = model(data, sample)
        loss, reconstruction = loss_function(logits, data, kl, settings.beta)
        loss.backward()
        optimizer.step()
        torch.stack((reconstruction.detach(), kl.detach()), out=own_terms)
        yield loss.item(), terms[:, : number * size]


@torch.no_grad()
def test(model: VAE, images: Tensor, draws: Draws, rows: int = 256) -> Losses:
    """Return the losses over `images` `(n, 784)`, with one posterior sample each, taken `rows` at
    a time."""
    model.eval()
    order, noise = draws.order.to(images.device), draws.noise.to(images.device)
    parts = []
    for chosen, sample in zip(order.split(rows), noise.split(rows), strict=True):
        data = images.index_select(0, chosen)
        logits, kl = model(data, sample)
        parts.append(torch.stack((loss_function(logits, data, kl)[1], kl)))
    return mean_losses(torch.cat(parts, dim=1))


def mean_losses(terms: Tensor) -> Losses:
    """Return the means of reconstruction and KL `(2, images)`, by exact sums."""
    return Losses(*(math.fsum(row) / len(row) for row in terms.tolist()))


def inexact_steps(start: Start, settings: Train) -> list[str]:
    """List the operations of a training step whose bits depend on the machine, by their ATen
    names. A copy of the model makes the step."""
    model = copy.deepcopy(start.model)
    data = start.train_images[: settings.batch_size]
    noise = torch.zeros(len(data), start.latent_size, device=data.device)

    def step() -> None:
        logits, kl = model(data, noise)
        loss_function(logits, data, kl, settings.beta)[0].backward()
        exact.optim.Adam(model.parameters()).step()

    return exact.inexact_operations(step)


def training_state(
    model: VAE, optimizer: torch.optim.Optimizer, stream: RandomStream
) -> dict[str, Tensor]:
    """Return everything that the next step depends on, by name, after at least one step."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            state[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    return state | {"generator": stream.generator.get_state()}


def resume(
    checkpoint: Checkpoint,
    model: VAE,
    optimizer: torch.optim.Optimizer,
    stream: RandomStream,
    recorder: FrameRecorder,
) -> list[list[float]]:
    """Restore the state that a checkpoint holds; return the losses of its epochs, if any."""
    state = checkpoint.load()
    if state is None:
        return []
    model.load_state_dict({name: state[f"model.{name}"] for name in model.state_dict()})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    stream.generator.set_state(state["generator"])
    recorder.frames, recorder.ends = (list(state[name].numpy()) for name in ("frames", "ends"))
    return state["losses"].tolist()


def _check(reconstruction: float, kl: float, where: str) -> None:
    """Raise UserError unless mean losses are finite, and the KL at most `MOST_KL`."""
    if not (math.isfinite(reconstruction) and kl <= MOST_KL):
        problem = "the KL has exploded" if MOST_KL < kl < math.inf else "the loss is not finite"
        raise UserError(
            f"{where}: {problem} (reconstruction {reconstruction}, KL {kl} nats per image), so "
            "training stops; a lower train.learning_rate may help"
        )
