"""What the 2-d loss table would read had the model seen some batches before its first epoch.

The post's 2-d table begins where no fresh model does. A run of one more epoch holds, for any number of
batches before, the losses of the ten epochs after them: each a window of as many batches as an epoch has.
"""

from collections.abc import Iterator
from typing import Any

from vae.data import Split
from vae.params import Params
from vae.training import begin, evaluate, fit

import numpy as np
import torch


def shifted_losses(
    params: Params, seed: int, before: range, train: Split, test: Split
) -> Iterator[dict[str, Any]]:
    """The 2-d model's losses by epoch after each number of batches in `before`, one seed: rows of
    `seed, batches, epoch, train_loss, test_loss`."""
    settings = params.train.model_copy(update={"epochs": params.train.epochs + 1})
    start = begin(seed, params.figures, settings, params.train_2d, train, test)
    batches = -(-len(train.images) // settings.batch_size)
    losses: list[float] = []  # of each batch, summed over its images
    tests: dict[int, float] = {}  # after so many batches

    def on_batch(terms: torch.Tensor) -> None:
        first = len(losses) % batches * settings.batch_size
        losses.append(terms[:, first:].sum().item())
        if len(losses) >= batches and len(losses) % batches in before:
            draws = start.stream.test_pass(len(test.images), start.model.latent_size)
            loss = evaluate(start.model, start.test_images, draws, settings.batch_size)
            tests[len(losses)] = loss.negative_elbo

    for _ in fit(start, settings, on_batch=on_batch):
        pass
    total = np.concatenate(([0.0], np.cumsum(losses)))
    for shift in before:
        for epoch in range(1, params.train.epochs + 1):
            end = shift + epoch * batches
            mean = (total[end] - total[end - batches]) / len(train.images)
            place = {"seed": seed, "batches": shift, "epoch": epoch}
            yield {**place, "train_loss": mean, "test_loss": tests[end]}
