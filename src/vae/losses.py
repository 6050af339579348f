"""Tables of losses by epoch, in nats per image, as trainings write them to plots/."""

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from vae.cli import UserError, one_line

SPLITS = ["train", "test"]
LOSSES = [f"{split}_loss" for split in SPLITS]
RESTORE = "restore it with git or `dvc repro`"


def read_table(source: Path | TextIO, types: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV that has columns of these `types`. Raises ValueError or OSError."""
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


def by_split(losses: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Give the losses of `load_losses` a row for each split: `columns, epoch, split` and `name`."""
    named = losses.rename(columns=dict(zip(LOSSES, SPLITS, strict=True)))
    return named.melt([*columns, "epoch"], SPLITS, "split", name)
