"""The published loss tables, and a run's losses beside them."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TextIO

from vae.cli import UserError, one_line
from vae.params import MODELS

import numpy as np
import pandas as pd

LOSSES = ["train_loss", "test_loss"]
# The post's tables, and those saved in the author's notebook: two runs of the same code.
SOURCES = {"post": "post", "notebook": "notebook-2019-06-05"}
EPOCHS = [*range(1, 11)]
# The KL that the post prints for its noise image, in nats.
PUBLISHED_NOISE_KL = 51.763
RESTORE = "restore it with git or `dvc repro`"


def read_table(source: Path | TextIO, types: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV that has columns of these `types`, or raise ValueError or OSError."""
    table = pd.read_csv(source, dtype=types)
    if missing := [name for name in types if name not in table]:
        raise ValueError(f"it has no column {missing[0]}")
    return table


def load_losses(path: Path, *columns: str) -> pd.DataFrame:
    """Read a table of whole numbers, `columns` and `epoch`, and `LOSSES` in nats per image.

    Raises UserError when it is missing, lacks a column or holds what is no finite number.
    """
    types = dict.fromkeys([*columns, "epoch"], int) | dict.fromkeys(LOSSES, float)
    try:
        table = read_table(path, types)
        if not np.isfinite(table[LOSSES]).all(axis=None):
            raise ValueError("a loss is missing or infinite")
        if (twice := table[table.duplicated([*columns, "epoch"])]).size:
            raise ValueError(f"epoch {twice['epoch'].iloc[0]} is there twice")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the losses of {path} ({one_line(error)}); {RESTORE}"
        ) from None
    return table


def load_published(folder: Path) -> pd.DataFrame:
    """Read every published table: `model, source` and the columns of `load_losses`.

    Raises UserError.
    """
    tables = []
    for model, (source, prefix) in product(MODELS, SOURCES.items()):
        path = folder / f"{prefix}-{model}.csv"
        table = load_losses(path)
        if table["epoch"].tolist() != EPOCHS:
            raise UserError(f"{path} should have a row for each epoch, 1 to 10; {RESTORE}")
        tables.append(table.assign(model=model, source=source))
    return pd.concat(tables, ignore_index=True)


def compare_losses(ours: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """Put ours beside each loss: `model, source, epoch, split, published, ours, difference`.

    `ours` and `difference`, ours minus published, are NaN where this run has no such epoch.
    """
    tables = {model: table[["epoch", *LOSSES]] for model, table in ours.items()}
    run = pd.concat(tables, names=["model", None]).reset_index("model")
    values = _by_split(published, ["model", "source", "epoch"], "published")
    values = values.join(_by_split(run, ["model", "epoch"], "ours")).reset_index()
    return values.assign(difference=values["ours"] - values["published"])


def _by_split(table: pd.DataFrame, keys: list[str], name: str) -> pd.DataFrame:
    """Give one column of losses, `name`, by `keys` and split."""
    losses = table.set_index(keys)[LOSSES].set_axis(["train", "test"], axis=1)
    return losses.rename_axis(columns="split").stack().to_frame(name)
