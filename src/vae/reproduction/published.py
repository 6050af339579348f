"""The published numbers beside ours."""

from itertools import product
from pathlib import Path
from typing import Any

from vae.cli import UserError
from vae.params import MODELS

import numpy as np
import pandas as pd

# The post's tables, and those saved in the author's notebook: two runs of the same code.
SOURCES = {"post": "post", "notebook": "notebook-2019-06-05"}
PUBLISHED_EPOCHS = 10
RESTORE = "restore it with git or `dvc repro`"
# How far a replay of the notebook's run may stray from it, by model and split, in nats per image: rounding
# differs between processors and versions of PyTorch, and training lets the differences grow.
REPLAY_TOLERANCES = {
    ("20d", "train"): 0.05,
    ("20d", "test"): 0.25,
    ("2d", "train"): 0.6,
    ("2d", "test"): 1.0,
}
# The KL that the post prints for its noise image, in nats.
PUBLISHED_NOISE_KL = 51.763


def load_losses(path: Path, *columns: str) -> pd.DataFrame:
    """A loss table with `columns` and `epoch`, `train_loss` and `test_loss`, in nats per image.

    Raises UserError when it is missing or empty, lacks a column or holds something that is no number.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read the loss table {path} ({reason}); {RESTORE}") from None
    for column in (*columns, "epoch", "train_loss", "test_loss"):
        if column not in table:
            raise UserError(f"{path} has no column {column}; {RESTORE}")
        odd = ~np.isfinite(pd.to_numeric(table[column], errors="coerce").astype(float))
        if odd.any():
            row = odd.to_numpy().argmax()
            value = table[column].iloc[row]
            raise UserError(
                f"{path}, row {row + 1}: {column} is {str(value)!r}; it should be a number; {RESTORE}"
            )
    if not len(table):
        raise UserError(f"the loss table {path} has no rows; {RESTORE}")
    return table


def load_published(folder: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """The published loss tables, by model and source. Raises UserError."""
    tables: dict[str, dict[str, pd.DataFrame]] = {model: {} for model in MODELS}
    for model, (source, prefix) in product(MODELS, SOURCES.items()):
        path = folder / f"{prefix}-{model}.csv"
        tables[model][source] = table = load_losses(path)
        if table["epoch"].tolist() != [*range(1, PUBLISHED_EPOCHS + 1)]:
            raise UserError(
                f"{path} should have a row for each epoch, 1 to {PUBLISHED_EPOCHS}; {RESTORE}"
            )
    return tables


def compare_losses(
    ours: dict[str, pd.DataFrame], published: dict[str, dict[str, pd.DataFrame]]
) -> pd.DataFrame:
    """A row for every published loss: `model, source, epoch, split, published, ours, difference`.

    `ours` and `difference`, ours minus published, are NaN for epochs that this run does not have.
    """
    rows: list[dict[str, Any]] = []
    for model, tables in published.items():
        run = ours[model].set_index("epoch")
        for source, table in tables.items():
            for split in ("train", "test"):
                values = table.set_index("epoch")[f"{split}_loss"]
                mine = run[f"{split}_loss"].reindex(values.index)
                rows += [
                    {
                        "model": model,
                        "source": source,
                        "epoch": int(epoch),
                        "split": split,
                        "published": value,
                        "ours": mine[epoch],
                        "difference": mine[epoch] - value,
                    }
                    for epoch, value in values.items()
                ]
    return pd.DataFrame(rows)


def replay_answer(values: pd.DataFrame) -> str:
    """In one sentence, how far the rows of `compare_losses` replay the notebook's run."""
    notebook, misses = values[values["source"] == "notebook"], replay_misses(values)
    answer = f"the notebook's run: {len(notebook) - len(misses)} of {len(notebook)} losses replayed"
    farthest = notebook.groupby(["model", "split"], sort=False)["difference"].agg(
        lambda d: d.abs().max()
    )
    apart = ", ".join(
        f"{model} {split} {distance:.3f} (tolerance {REPLAY_TOLERANCES[model, split]})"
        for (model, split), distance in farthest.items()
    )
    return f"{answer}; farthest apart, in nats: {apart}"


def replay_misses(values: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare_losses` in which this run is not a replay of the notebook's."""
    notebook = values[values["source"] == "notebook"]
    tolerance = [
        REPLAY_TOLERANCES[key] for key in zip(notebook["model"], notebook["split"], strict=True)
    ]
    return notebook[~(notebook["difference"].abs() <= tolerance)]
