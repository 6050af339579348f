"""Compare DVC's experiments: both test losses in nats, and what differs from the last commit.

With values to try, all combinations of them are run first, each as an experiment of its own.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

import src_path  # noqa: F401
from study import override
from vae import cli
from vae.cli import UserError
from vae.files import written_whole
from vae.params import MODELS, check_params
from vae.report.figures import save_figure, styled

SUMMARY = "metrics/summary.json"
FIGURE = Path("dvc_plots/experiments.png")


class Row(NamedTuple):
    """An experiment: the last test loss of each model, in nats, and what its parameters differ in
    from the commit's."""

    name: str
    losses: list[float]
    differs: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    help_grid = "values to try for a key of params.yaml; several such, all combinations"
    parser.add_argument("grid", nargs="*", type=override, metavar="KEY=VALUE,...", help=help_grid)
    if grid := dict(parser.parse_args().grid):
        # DVC's own answer to a wrong key is a riddle, and to a wrong value a failed experiment.
        for values in product(*grid.values()):
            check_params(Path("params.yaml"), dict(zip(grid, values, strict=True)))
        settings = [f"--set-param={key}={json.dumps(tried)[1:-1]}" for key, tried in grid.items()]
        dvc("exp", "run", "--queue", *settings)
        dvc("exp", "run", "--run-all")
    rows = list(experiments(json.loads(dvc("exp", "show", "--json", output=subprocess.PIPE))))
    print("\n".join(lines(rows)))
    if len(rows) > 2:
        with written_whole(FIGURE) as path:
            save_figure(path, loss_dots(rows))
        print(f"as a figure: {FIGURE}")


def dvc(*arguments: str, output: int | None = None) -> str | None:
    """Run a command of DVC's; what it prints is shown, or returned where `output` is a pipe.

    Raises UserError.
    """
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], stdout=output, text=True)
    if result.returncode:
        raise UserError(f"dvc {' '.join(arguments[:3])} failed; the lines above say why")
    return result.stdout


def experiments(shown: list[dict[str, Any]]) -> Iterator[Row]:
    """Give the workspace, each commit and each of its experiments, from `dvc exp show --json`;
    differences are from the first commit."""
    found = []
    for entry in shown:
        name = entry["name"] or entry["rev"]
        found.append((name if name == "workspace" else name[:20], entry["data"] or {}, ""))
        for experiment in entry["experiments"] or ():
            state = (experiment["executor"] or {}).get("state")
            # Whose metrics, until it has ended well, are the commit's.
            state = state if state in ("queued", "running", "failed") else ""
            data = experiment["revs"][0]["data"] or {}
            found.append(
                (f"  {experiment['name'] or experiment['revs'][0]['rev'][:7]}", data, state)
            )
    before = _params(next((data for name, data, _ in found if name != "workspace"), {}))
    for name, data, state in found:
        differs = [f"{key}={v}" for key, v in _params(data).items() if before.get(key) != v]
        losses = [math.nan if state else _test_loss(data, model) for model in MODELS]
        yield Row(name, losses, [*filter(None, [state]), *differs])


def lines(rows: list[Row]) -> Iterator[str]:
    """Write a line for each row, with how far its losses are from the first commit's."""
    committed = next((row.losses for row in rows if row.name != "workspace"), None)
    width = max(len(row.name) for row in rows)
    yield " " * width + "".join(f"  {f'{model} test':>8}{'change':>9}" for model in MODELS)
    for row in rows:
        pairs = zip(row.losses, committed or row.losses, strict=True)
        losses = "".join(f"  {ours:8.3f}{ours - theirs:+9.3f}" for ours, theirs in pairs)
        yield " ".join([f"{row.name:{width}}{losses}", "", *row.differs]).rstrip()


@styled
def loss_dots(rows: list[Row]) -> Figure:
    """Draw the last test loss of both models for each row, a panel for each model."""
    names = [", ".join(row.differs) or row.name.strip() for row in rows]
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(MODELS), sharey=True)
    for number, (model, axes) in enumerate(zip(MODELS, panels, strict=True)):
        axes.plot([row.losses[number] for row in rows], range(len(rows)), "o")
        axes.set(title=f"{model[:-1]}-d latent space", xlabel="Test loss (nats per image)")
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].invert_yaxis()
    return figure


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
