"""Other values for keys of params.yaml, as typed on a command line: KEY=VALUE,VALUE KEY=VALUE."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.cli import UserError
from vae.params import Params, check_params

Grid = Mapping[str, Sequence[Any]]
# A value may have spaces: it ends before the next KEY= outside quotes.
PAIR = re.compile(r"""(?:"[^"]*"|'[^']*'|\S|\s(?!\s*[\w.-]+\s*=))+""")


def read_grid(text: str) -> Grid:
    """Read the values to try for each key. Raises UserError."""
    pairs = [key_values(pair) for pair in PAIR.findall(text.strip())]
    grid = dict(pairs)
    if len(grid) < len(pairs):
        raise UserError(f"{text!r} has a key twice; write it once: KEY=VALUE,VALUE")
    return grid


def key_values(text: str) -> tuple[str, list[Any]]:
    """Split `train.epochs=5,10` into the key and its values, which are YAML. Raises UserError."""
    key, _, values = text.partition("=")
    try:
        found = YAML(typ="safe").load(f"[{values}]")
    except YAMLError:
        found = []
    if not (key and found):
        raise UserError(f"{text!r} is not KEY=VALUE,VALUE, with values as in params.yaml")
    return key.strip(), found


def combinations(grid: Grid) -> Iterator[Params]:
    """Yield params.yaml with each combination of a grid's values. Raises UserError."""
    for values in itertools.product(*grid.values()):
        yield check_params(Path("params.yaml"), dict(zip(grid, values, strict=True)))


def dvc_options(grid: Grid) -> list[str]:
    """Return a grid, whose values are checked, as options of `dvc exp run`. Raises UserError."""
    options = []
    for key, values in grid.items():
        # DVC reads JSON, but with the keys of a mapping unquoted.
        text = re.sub(r'"(\w+)": ', r"\1: ", json.dumps(values, ensure_ascii=False)[1:-1])
        if "${" in text or "\\" in text.replace('\\"', ""):
            raise UserError(f"{key}: DVC takes no \\ and ${{ in a value; edit params.yaml instead")
        options.append(f"--set-param={key}={text}")
    return options
