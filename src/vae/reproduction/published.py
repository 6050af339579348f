"""The published loss tables, and a run's losses beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pandas as pd
from pydantic import Field

from vae.cli import UserError
from vae.losses import RESTORE, SPLITS, by_split, load_losses
from vae.params import MODELS, Binarize, Count
from vae.typed_yaml import Group, read_yaml

COLUMNS = ["model", "source", "epoch", "split", "published", "tolerance"]


class Data(Binarize):
    """On which data numbers were measured, in the words of params.yaml."""

    dataset: str


class Table(Group):
    """A CSV of one model's losses by epoch; `replay` is the tolerance of its run's replay: how far
    rounding alone carries it by the last epoch, in nats per image."""

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
    """data/published/tables.yaml: `about` and `cite` are Markdown, `seed` is that of the runs with
    a `replay`."""

    title: str = ""
    about: str
    cite: str = ""
    data: Data
    seed: int | None = None
    tables: Annotated[tuple[Table, ...], Field(strict=False)]
    noise_kl: NoiseKL | None = None
    earlier_training: str | None = None


class Published(NamedTuple):
    """The index, and its tables as one, with `COLUMNS`; `tolerance` is NaN without a `replay`."""

    index: Index
    losses: pd.DataFrame


def load_published(folder: Path, dataset: str, binarize: Binarize) -> Published:
    """Read what is published of this data: nothing where tables.yaml has numbers of other data.

    Raises UserError.
    """
    index = read_yaml(folder / "tables.yaml", Index)
    if index.data != Data(dataset=dataset, **dict(binarize)):
        index = Index(about="", data=index.data, tables=())
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
        return Published(index, pd.DataFrame(columns=COLUMNS))
    return Published(index, pd.concat(tables, ignore_index=True))


def compare_losses(ours: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """Add to each of the `Published.losses` `ours` and `difference`, ours minus published: NaN
    where this run has no such epoch. `ours` has a run's losses by model."""
    run = pd.concat([by_split(ours[model].assign(model=model), "ours", "model") for model in ours])
    values = published.merge(run, "left", ["model", "epoch", "split"])
    return values.assign(difference=values["ours"] - values["published"])
