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

SPLITS = ["train", "test"]
LOSSES = [f"{split}_loss" for split in SPLITS]
RESTORE = "restore it with git or `dvc repro`"


class Data(Binarize):
    """On which data numbers were measured, in the words of params.yaml."""

    dataset: str


class Table(Group):
    """A CSV of one model's losses by epoch; `replay` is how far that of the same run may be from
    them, in nats per image."""

    source: Annotated[str, Field(min_length=1)]
    model: Literal[MODELS]
    file: str
    epochs: Count
    replay: dict[Literal[*SPLITS], Annotated[float, Field(ge=0)]] | None = None


class NoiseKL(Group):
    """The KL, in nats, of an image of coin flips under the 20-d model."""

    source: str
    value: float


class Index(Group):
    """data/published/tables.yaml; `about` and `cite` are Markdown."""

    about: str
    cite: str = ""
    data: Data
    tables: Annotated[tuple[Table, ...], Field(strict=False)]
    noise_kl: NoiseKL | None = None
    earlier_training: str | None = None


class Published(NamedTuple):
    """The index, and its tables as one: `model, source, epoch, split, published, tolerance`.

    The tolerance is that of a replay, NaN where the table has none.
    """

    index: Index
    losses: pd.DataFrame


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


def by_split(losses: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Give the losses of `load_losses` a row for each split: `columns, epoch, split` and `name`."""
    named = losses.rename(columns=dict(zip(LOSSES, SPLITS, strict=True)))
    return named.melt([*columns, "epoch"], SPLITS, "split", name)


def load_published(folder: Path, dataset: str, binarize: Binarize) -> Published:
    """Read what is published of this data: no table where tables.yaml has numbers of other data.

    Raises UserError.
    """
    index = read_yaml(folder / "tables.yaml", Index)
    if index.data != Data(dataset=dataset, **dict(binarize)):
        index = index.model_copy(update={"tables": (), "noise_kl": None, "earlier_training": None})
    tables = []
    for entry in index.tables:
        path = folder / entry.file
        table = load_losses(path)
        if table["epoch"].tolist() != [*range(1, entry.epochs + 1)]:
            raise UserError(
                f"{path} should have a row for each epoch, 1 to {entry.epochs}; {RESTORE}"
            )
        table = table.assign(model=entry.model, source=entry.source)
        table = by_split(table, "published", "model", "source")
        tolerance = table["split"].map(entry.replay or {}).astype(float)
        tables.append(table.assign(tolerance=tolerance))
    if not tables:
        columns = ["model", "source", "epoch", "split", "published", "tolerance"]
        return Published(index, pd.DataFrame(columns=columns))
    return Published(index, pd.concat(tables, ignore_index=True))


def compare_losses(ours: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """Add to each of the `Published.losses` `ours` and `difference`, ours minus published: NaN
    where this run has no such epoch. `ours` has a run's losses by model."""
    run = pd.concat([by_split(ours[model].assign(model=model), "ours", "model") for model in ours])
    values = published.merge(run, "left", ["model", "epoch", "split"])
    return values.assign(difference=values["ours"] - values["published"])
