"""The published loss tables, and a run's losses beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from vae.cli import UserError
from vae.losses import RESTORE, SPLITS, by_split, load_losses
from vae.params import MODELS, Binarize, Count
from vae.typed_yaml import Group, read_yaml

COLUMNS = ["model", "source", "epoch", "split", "published", "tolerance"]


class Data(Binarize):
    """The data that numbers were measured on, as params.yaml names it."""

    dataset: str


class Table(Group):
    """A CSV of one model's losses by epoch.

    `replay` is the tolerance of its run's replay, in nats per image, by split.
    """

    source: Annotated[str, Field(min_length=1)]
    model: Literal[MODELS]
    file: str
    epochs: Count
    replay: dict[Literal[*SPLITS], Annotated[float, Field(ge=0)]] | None = None


class NoiseKL(Group):
    """The KL of an image of coin flips under the 20-d model, in nats."""

    source: str
    value: float


class Index(Group):
    """data/published/tables.yaml. `about` and `cite` are Markdown."""

    title: str = ""
    about: str
    cite: str = ""
    data: Data
    parameters: dict[str, Any] = Field(default_factory=dict)
    tables: Annotated[tuple[Table, ...], Field(strict=False)]
    noise_kl: NoiseKL | None = None
    earlier_training: str | None = None


class Published(NamedTuple):
    """The index, and all its numbers as one table with `COLUMNS`.

    The noise image's KL is the split "noise" in epoch 0. Without a replay, `tolerance` is NaN.
    """

    index: Index
    losses: pd.DataFrame


def load_published(folder: Path, dataset: str, binarize: Binarize) -> Published:
    """Read the numbers published for this data; none if tables.yaml is about other data.

    Raises UserError.
    """
    index = read_yaml(folder / "tables.yaml", Index)
    if index.data != Data(dataset=dataset, **dict(binarize)):
        index = Index(about="", data=index.data, parameters=index.parameters, tables=())
    tables = []
    for entry in index.tables:
        path = folder / entry.file
        table = load_losses(path)
        if table["epoch"].tolist() != [*range(1, entry.epochs + 1)]:
            raise UserError(f"{path} should have one row per epoch, 1 to {entry.epochs}; {RESTORE}")
        table = table.assign(model=entry.model, source=entry.source)
        table = by_split(table, "published", "model", "source")
        tolerance = table["split"].map(entry.replay or {}).astype(float)
        tables.append(table.assign(tolerance=tolerance))
    if noise := index.noise_kl:
        row = {"model": "20d", "source": noise.source, "epoch": 0, "split": "noise"}
        tables.append(pd.DataFrame([row | {"published": noise.value, "tolerance": np.nan}]))
    empty = pd.DataFrame(columns=COLUMNS)
    return Published(index, pd.concat(tables, ignore_index=True) if tables else empty)


def compare_losses(
    ours: Mapping[str, pd.DataFrame], noise_kl: float, published: pd.DataFrame
) -> pd.DataFrame:
    """Add a run's losses by model, and its noise image's KL, to `Published.losses` as `ours`.

    `difference` is ours minus published. Both are NaN where the run has no such epoch.
    """
    run = [by_split(table.assign(model=model), "ours", "model") for model, table in ours.items()]
    noise = {"model": "20d", "epoch": 0, "split": "noise", "ours": noise_kl}
    run.append(pd.DataFrame([noise]))
    values = published.merge(pd.concat(run), "left", ["model", "epoch", "split"])
    return values.assign(difference=values["ours"] - values["published"])
