"""The stream against the notebook's own steps, written out plainly on torch's global generator."""

from itertools import chain

import torch
from torch import nn

from conftest import bits
from vae.model import VAE, build_model
from vae.params import Architecture
from vae.stream import Draws, RandomStream
from vae.training import Start, fit

SEED, BATCH, INTERVAL, PICTURES = 199, 128, 10, 5
# More than the interval's batches, the last one not full.
TRAINING, TEST = 1500, 300


def stream() -> RandomStream:
    return RandomStream(SEED, BATCH, PICTURES, INTERVAL)


def notebooks_model(inner: int, latent: int) -> list[nn.Linear]:
    return [nn.Linear(784, inner), nn.Linear(inner, latent), nn.Linear(inner, latent),
            nn.Linear(latent, inner), nn.Linear(inner, 784)]  # fmt: skip


def notebooks_frame(latent: int) -> torch.Tensor:
    return torch.cat([torch.randn_like(torch.empty(1, latent)) for _ in range(PICTURES)])


def notebooks_pass(images: int, latent: int, frames: bool) -> Draws:
    torch.empty((), dtype=torch.int64).random_()
    order = torch.randperm(images)
    noise, captured = [], [torch.empty(0, PICTURES, latent)]
    for batch, rows in enumerate(order.split(BATCH)):
        noise.append(torch.randn_like(torch.empty(len(rows), latent)))
        if frames and batch % INTERVAL == 0:
            captured.append(notebooks_frame(latent)[None])
    return Draws(order, torch.cat(noise), torch.cat(captured))


def assert_initial_values(ours: RandomStream, model: VAE, notebooks: list[nn.Linear]) -> None:
    """The model's encoder ends in one layer where the notebook had two."""
    ours.initialise(model)
    (first, mean, log_variance, *decoder) = ([*layer.parameters()] for layer in notebooks)
    joined = [torch.cat(pair) for pair in zip(mean, log_variance, strict=True)]
    expected = [*first, *joined, *chain.from_iterable(decoder)]
    assert bits(*model.parameters()) == bits(*expected)


def test_a_run_draws_what_the_notebook_draws_in_its_order():
    torch.manual_seed(SEED)
    first_model, frame = notebooks_model(400, 20), notebooks_frame(20)
    passes = [(TRAINING, 20, True), (TEST, 20, False)]
    expected = [notebooks_pass(*each) for each in passes]
    second_model = notebooks_model(7, 2)

    large = build_model(Architecture(hidden_sizes=(400,), latent_size=20))
    small = build_model(Architecture(hidden_sizes=(7,), latent_size=2))
    ours, before = stream(), torch.get_rng_state()
    assert_initial_values(ours, large, first_model)
    assert torch.equal(ours.frame(20), frame)
    for each, draws in zip(passes, expected, strict=True):
        assert all(map(torch.equal, ours.epoch(*each), draws))
    assert_initial_values(ours, small, second_model)
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is left alone


def test_skipping_a_run_leaves_the_stream_where_it_ends(params, small):
    settings = params.train.model_copy(update={"epochs": 2})
    images = torch.randint(2, (TRAINING, 784), dtype=torch.uint8)
    real = stream()
    model = build_model(small)
    real.initialise(model)
    list(fit(Start(model, 2, images, images[:TEST], real), settings))

    skipped = stream()
    skipped.skip_run(build_model(small), 2, epochs=2, training_images=TRAINING, test_images=TEST)
    assert torch.equal(skipped.generator.get_state(), real.generator.get_state())
