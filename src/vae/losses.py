"""Tables of losses by epoch, in nats per image, as in plots/20d-losses.csv."""

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
    """Read a CSV of `columns` and `epoch`, whole numbers, and `LOSSES`, in nats per image.

    Raises UserError where a column, a loss or the file is missing, or an epoch is repeated.
    """
    types = dict.fromkeys([*columns, "epoch"], int) | dict.fromkeys(LOSSES, float)
    try:
        table = read_table(path, types)
        if not np.isfinite(table[LOSSES]).all(axis=None):
            raise ValueError("a loss is missing or infinite")
        repeated = table.duplicated([*columns, "epoch"])
        if repeated.any():
            raise ValueError(f"epoch {table['epoch'][repeated].iloc[0]} is repeated")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the losses of {path} ({one_line(error)}); {RESTORE}"
        ) from None
    return table


def by_split(losses: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Return losses with one row per split: `columns`, `epoch`, `split`, and the loss as `name`."""
    named = losses.rename(columns=dict(zip(LOSSES, SPLITS, strict=True)))
    return named.melt([*columns, "epoch"], SPLITS, "split", name)
