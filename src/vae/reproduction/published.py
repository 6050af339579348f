"""The published loss tables, and a run's losses beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TextIO

import numpy as np
import pandas as pd
from pydantic import Field

from vae.cli import UserError, one_line
from vae.params import MODELS, Binarize, Count
from vae.typed_yaml import Group, read_yaml

LOSSES = ["train_loss", "test_loss"]
SPLITS = ["train", "test"]
RESTORE = "restore it with git or `dvc repro`"

Nats = Annotated[float, Field(ge=0)]


class Data(Binarize):
    """On which data numbers were measured, in the words of params.yaml."""

    dataset: str


class Replay(Group):
    """How far a replay of a table's own run may be from it, in nats per image."""

    train: Nats
    test: Nats


class Table(Group):
    """A CSV of one model's losses by epoch."""

    source: Annotated[str, Field(min_length=1)]
    model: Literal[MODELS]
    file: str
    epochs: Count
    replay: Replay | None = None


class NoiseKL(Group):
    """The KL, in nats, of an image of coin flips under the 20-d model."""

    source: str
    value: float


class Index(Group):
    """data/published/tables.yaml."""

    about: str
    data: Data
    tables: Annotated[tuple[Table, ...], Field(strict=False)]
    noise_kl: NoiseKL | None = None
    earlier_training: str | None = None


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


def load_index(folder: Path, dataset: str, binarize: Binarize) -> Index:
    """Read which numbers are published of this data, in tables.yaml: none where they are of other
    data. Raises UserError."""
    index = read_yaml(folder / "tables.yaml", Index)
    if index.data == Data(dataset=dataset, **dict(binarize)):
        return index
    return index.model_copy(update={"tables": (), "noise_kl": None, "earlier_training": None})


class Published(NamedTuple):
    """The index, and its tables' losses as one: `model, source`, the columns of `load_losses`, and
    the tolerances of a replay, `train, test`, NaN where a table has none."""

    index: Index
    losses: pd.DataFrame


def load_published(folder: Path, dataset: str, binarize: Binarize) -> Published:
    """Read all that is published of this data; no row where `load_index` has no table.

    Raises UserError.
    """
    index, tables = load_index(folder, dataset, binarize), []
    for entry in index.tables:
        path = folder / entry.file
        table = load_losses(path)
        if table["epoch"].tolist() != [*range(1, entry.epochs + 1)]:
            raise UserError(
                f"{path} should have a row for each epoch, 1 to {entry.epochs}; {RESTORE}"
            )
        replay = dict(entry.replay) if entry.replay else dict.fromkeys(SPLITS, np.nan)
        tables.append(table.assign(model=entry.model, source=entry.source, **replay))
    if not tables:
        columns = ["model", "source", "epoch", *LOSSES, *SPLITS]
        return Published(index, pd.DataFrame(columns=columns))
    return Published(index, pd.concat(tables, ignore_index=True))


def compare_losses(ours: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """Put ours beside each loss: `model, source, epoch, split, published, tolerance, ours,
    difference`.

    `ours` and `difference`, ours minus published, are NaN where this run has no such epoch;
    `tolerance` is that of a replay, NaN where the table has none.
    """
    tables = {model: table[["epoch", *LOSSES]] for model, table in ours.items()}
    run = pd.concat(tables, names=["model", None]).reset_index("model")
    places = ["model", "source", "epoch"]
    values = _by_split(published, places, LOSSES, "published")
    values = values.join(_by_split(published, places, SPLITS, "tolerance"))
    values = values.join(_by_split(run, ["model", "epoch"], LOSSES, "ours")).reset_index()
    return values.assign(difference=values["ours"] - values["published"])


def _by_split(table: pd.DataFrame, keys: list[str], columns: list[str], name: str) -> pd.DataFrame:
    """Give the two `columns`, of train and test, as one column `name` by `keys` and split."""
    pair = table.set_index(keys)[columns].set_axis(SPLITS, axis=1)
    return pair.rename_axis(columns="split").stack(future_stack=True).to_frame(name)
