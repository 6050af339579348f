"""Other values for keys of params.yaml, as a command line has them: KEY=VALUE,VALUE."""

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.params import Params, check_params

Grid = Mapping[str, Sequence[Any]]


def key_values(text: str) -> tuple[str, list[Any]]:
    """Split into a key and its values, which are YAML: `train.epochs=5,10`.

    Raises ArgumentTypeError, which argparse shows with the usage.
    """
    key, _, values = text.partition("=")
    try:
        found = YAML(typ="safe").load(f"[{values}]")
    except YAMLError:
        found = []
    if not (key and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE,VALUE")
    return key, found


def combinations(grid: Grid) -> Iterator[Params]:
    """Give params.yaml with each combination of a grid's values. Raises UserError."""
    for values in itertools.product(*grid.values()):
        yield check_params(Path("params.yaml"), dict(zip(grid, values, strict=True)))


def settings(grid: Grid) -> list[str]:
    """Give a grid as options of `dvc exp run`, all its combinations checked. Raises UserError.

    DVC's own answer to a wrong key is a riddle, and to a wrong value a failed experiment.
    """
    list(combinations(grid))
    return [f"--set-param={key}={json.dumps(values)[1:-1]}" for key, values in grid.items()]
