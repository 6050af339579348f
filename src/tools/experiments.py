"""Compare DVC's experiments: both test losses in nats, and what differs from the last commit."""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from vae.cli import UserError, arguments
from vae.params import MODELS

SUMMARY = "metrics/summary.json"


def main() -> None:
    arguments(__doc__)
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise UserError("dvc exp show failed; the lines above say why")
    print("\n".join(lines(json.loads(result.stdout))))


def lines(shown: list[dict[str, Any]]) -> Iterator[str]:
    """Write a line for the workspace, each commit and each of its experiments, from `dvc exp show
    --json`; differences are from the first commit."""
    rows = []
    for entry in shown:
        name = entry["name"] or entry["rev"]
        rows.append((name if name == "workspace" else name[:20], entry["data"] or {}))
        for experiment in entry["experiments"] or ():
            rows.append((f"  {experiment['name']}", experiment["revs"][0]["data"] or {}))
    committed = next((data for name, data in rows if name != "workspace"), {})
    before, width = _params(committed), max(len(name) for name, _ in rows)
    yield " " * width + "".join(f"  {f'{model} test':>8}{'change':>9}" for model in MODELS)
    for name, data in rows:
        line = f"{name:{width}}"
        for model in MODELS:
            ours, theirs = (_test_loss(each, model) for each in (data, committed))
            line += f"  {ours:8.3f}{ours - theirs:+9.3f}"
        differs = {key: value for key, value in _params(data).items() if before.get(key) != value}
        yield " ".join([line, "", *(f"{key}={value}" for key, value in differs.items())]).rstrip()


def _test_loss(data: dict[str, Any], model: str) -> float:
    """A model's test loss in nats; NaN where it is missing, as of an experiment that failed."""
    found = (data.get("metrics") or {}).get(SUMMARY, {}).get("data", {})
    return found.get(model, {}).get("test_loss", math.nan)


def _params(data: dict[str, Any]) -> dict[str, Any]:
    """The parameters under flat names."""
    groups = (data.get("params") or {}).get("params.yaml", {}).get("data", {})
    found = {}
    for name, value in groups.items():
        inner = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return found


if __name__ == "__main__":
    cli.run(main)
