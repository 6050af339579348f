"""Compare DVC's experiments: both test losses in nats, and what differs from the last commit.

With values to try, all combinations of them are run first, each as an experiment of its own.
"""

import argparse
import io
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
import src_path  # noqa: F401

import pandas as pd
from matplotlib.figure import Figure

from vae import cli
from vae.cli import UserError
from vae.files import written_whole
from vae.grid import key_values, settings
from vae.params import MODELS, Params
from vae.report.figures import save_figure, styled

FIGURE = Path("dvc_plots/experiments.png")
GROUPS = [field.alias or name for name, field in Params.model_fields.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    help_grid = "values to try for a key of params.yaml; several such, all combinations"
    parser.add_argument("grid", nargs="*", type=key_values, metavar="KEY=VALUE,...", help=help_grid)
    if grid := dict(parser.parse_args().grid):
        options = settings(grid)
        dvc("exp", "run", "--queue", *options)
        dvc("exp", "run", "--run-all")
    table = experiments(dvc("exp", "show", "--csv", output=subprocess.PIPE))
    print("\n".join(lines(table)))
    if len(table) > 2:
        with written_whole(FIGURE) as path:
            save_figure(path, loss_dots(table))
        print(f"as a figure: {FIGURE}")


def dvc(*arguments: str, output: int | None = None) -> str:
    """Run a command of DVC's; what it prints is shown, or returned where `output` is a pipe.

    Raises UserError.
    """
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], stdout=output, text=True)
    if result.returncode:
        raise UserError(f"dvc {' '.join(arguments[:3])} failed; the lines above say why")
    return result.stdout


def experiments(csv: str) -> pd.DataFrame:
    """Read what `dvc exp show --csv` prints: workspace, last commit, then each experiment.

    Columns: `name`; each model's last test loss in nats, NaN until an experiment has ended well;
    `differs`, its state until then and its parameters that are not the commit's.
    """
    shown = pd.read_csv(io.StringIO(csv), dtype=str, keep_default_na=False)
    table = pd.DataFrame(
        {"name": shown["Experiment"].where(shown["typ"] != "baseline", shown["rev"])}
    )
    state = shown.get("State", pd.Series("", shown.index)).replace("Success", "").str.lower()
    for model in MODELS:
        losses = pd.to_numeric(shown[f"{model}.test_loss"], errors="coerce")
        table[model] = losses.where(state == "")
    params = [key for key in shown if key.partition(".")[0] in GROUPS]
    committed = shown.iloc[1]
    table["differs"] = [
        [f"{key}={row[key]}" for key in params if row[key] != committed[key]]
        for _, row in shown.iterrows()
    ]
    table["differs"] = state.map(lambda word: [word] if word else []) + table["differs"]
    return table


def lines(table: pd.DataFrame) -> Iterator[str]:
    """Write a line for each row, with how far its losses are from the commit's, in 80 columns."""
    width = table["name"].str.len().max()
    yield " " * width + "".join(f"{f'{model} test':>10}{'change':>9}" for model in MODELS)
    changes = table[[*MODELS]] - table.loc[1, [*MODELS]]
    for number, row in table.iterrows():
        losses = "".join(f"{row[m]:10.3f}{changes.loc[number, m]:+9.3f}" for m in MODELS)
        line = " ".join([f"{row['name']:{width}}{losses} ", *row["differs"]])
        yield textwrap.fill(line, 80, subsequent_indent="    ", break_on_hyphens=False)


@styled
def loss_dots(table: pd.DataFrame) -> Figure:
    """Draw the last test loss of both models for each row, a panel for each model."""
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(table)), layout="constrained")
    panels = figure.subplots(1, len(MODELS), sharey=True)
    for model, axes in zip(MODELS, panels, strict=True):
        axes.plot(table[model], table.index, "o")
        axes.set(title=f"{model[:-1]}-d latent space", xlabel="Test loss (nats per image)")
    names = table["differs"].str.join(", ").mask(lambda names: names == "", table["name"])
    panels[0].set_yticks(table.index, names)
    panels[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    cli.run(main)
