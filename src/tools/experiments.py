"""Compare DVC's experiments: both test losses in nats, and what differs from the last commit.

With values to try, all combinations of them are run first, each as an experiment of its own.
"""

import argparse
import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from shlex import quote
import src_path  # noqa: F401

import pandas as pd
from dvc.api import exp_show
from matplotlib.figure import Figure

from repro import dvc
from vae import cli
from vae.cli import UserError
from vae.custom_data import CUSTOM
from vae.git import check_whole, committed, git
from vae.grid import Grid, combinations, dvc_options, read_grid
from vae.params import MODELS, Params
from vae.report.figures import save_figure, styled
from vae.reproduction.verdicts import VERDICTS

FIGURE = Path("dvc_plots/experiments.png")
GROUPS = [field.alias or name for name, field in Params.model_fields.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    help_grid = "values to try for a key of params.yaml; several such, all combinations"
    parser.add_argument("grid", nargs="*", metavar="KEY=VALUE,...", help=help_grid)
    grid = read_grid(" ".join(parser.parse_args().grid))
    queued = run_queue(grid) if grid else set()
    table, noise = experiments(), seed_noise()
    print("\n".join(lines(table, noise)))
    if len(table) > 2:
        save_figure(FIGURE, loss_dots(table, noise))
        print(f"as a figure: {FIGURE}")
    if failed := queued - set(table["name"][table[[*MODELS]].notna().all(axis=1)]):
        names = ", ".join(sorted(failed))
        raise UserError(f"{len(failed)} of {len(queued)} experiments have no results: {names}")


def run_queue(grid: Grid) -> set[str]:
    """Run an experiment for each combination, and what is in DVC's queue; return their names.

    Raises UserError where all would fail or be lost.
    """
    for place in {params.download.dataset for params in combinations(grid)}:
        others = git("ls-files", "--others", "--exclude-from=.dvcignore", "--", place)
        if place.startswith(CUSTOM) and others and not git("ls-files", f"{place}.dvc"):
            raise UserError(
                f"experiments have what git or DVC tracks, and {place} is new: git add "
                f"{quote(place)}, or dvc add {quote(place)} && git add {quote(f'{place}.dvc')}"
            )
    check_whole()
    if dvc("exp", "run", "--queue", *dvc_options(grid)):
        raise UserError("nothing has run; the lines above say why")
    queued = {row["Experiment"] for row in exp_show() if row["State"] == "Queued"}
    dvc("exp", "run", "--run-all")
    return queued


def experiments() -> pd.DataFrame:
    """Read the workspace, the last commit, and all experiments, also those of earlier commits.

    Columns: `name`; each model's last test loss in nats, NaN until an experiment has ended well;
    `differs`, its state until then and its parameters that are not the commit's.
    """
    references = git("for-each-ref", "--format=%(refname)", "refs/exps")
    starts = {"".join(found) for found in re.findall("^refs/exps/(..)/(.{38})/", references, re.M)}
    shown = pd.DataFrame(exp_show(revs=["HEAD", *sorted(starts)]))
    shown = shown[(shown.index < 2) | (shown["typ"] != "baseline")].reset_index(drop=True)
    name = shown["Experiment"].fillna(shown["rev"])
    table = pd.DataFrame({"name": name.mask(name.duplicated(False), name + " " + shown["rev"])})
    state = shown["State"].replace("Success", None).fillna("").str.lower()
    for model in MODELS:
        losses = pd.to_numeric(shown[f"{model}.test_loss"], errors="coerce")
        table[model] = losses.where(state == "")
    params = [key for key in shown if key.partition(".")[0] in GROUPS]
    # DVC gives all numbers as floats.
    values = shown[params].astype(str).replace(r"\.0$", "", regex=True)
    table["differs"] = [
        " ".join(
            [word, *(f"{key}={row[key]}" for key in params if row[key] != values[key][1])]
        ).strip()
        for word, (_, row) in zip(state, values.iterrows(), strict=True)
    ]
    return table


def seed_noise() -> dict[str, float]:
    """How far apart the last test losses of two seeds are in 99 of 100 pairs: nats by model.

    Only of models that a study has with the commit's parameters and data.
    """
    results = json.loads(committed("metrics/reproduction.json") or '{"published": []}')
    noise = {}
    for row in sorted(results["published"], key=itemgetter("epoch")):
        if row["split"] == "test" and row["verdict"] != VERDICTS[3]:
            # From one more seed beside the mean of n to two seeds.
            noise[row["model"]] = (row["high"] - row["low"]) / math.sqrt(2 + 2 / row["n"])
    return noise


def lines(table: pd.DataFrame, noise: Mapping[str, float]) -> Iterator[str]:
    """Write a line for each row, with how far its losses are from the commit's, in 80 columns."""
    width = table["name"].str.len().max()
    yield " " * width + "".join(f"{f'{model} test':>10}{'change':>9} " for model in MODELS)
    for _, row in table.iterrows():
        line = f"{row['name']:{width}}"
        for model in MODELS:
            change = row[model] - table.loc[1, model]
            mark = "~" if 0 < abs(change) <= noise.get(model, 0) else " "
            line += f"{row[model]:10.3f}{change:+9.3f}{mark}" if change == change else " " * 20
        line = f"{line} {row['differs']}"
        yield textwrap.fill(line, 80, subsequent_indent="    ", break_on_hyphens=False)
    if noise:
        nats = ", ".join(f"{model} {noise[model]:.2f}" for model in noise)
        yield f"~ within the seeds' noise (99 % of pairs of seeds): {nats} nats"


@styled
def loss_dots(table: pd.DataFrame, noise: Mapping[str, float]) -> Figure:
    """Draw the last test loss of both models for each row, and the seeds' noise at the commit's."""
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(table)), layout="constrained")
    panels = figure.subplots(1, len(MODELS), sharey=True)
    for model, axes in zip(MODELS, panels, strict=True):
        axes.plot(table[model], table.index, "o")
        axes.set(title=f"{model[:-1]}-d latent space", xlabel="Test loss (nats per image)")
        if model in noise:
            low, high = (table.loc[1, model] + side * noise[model] for side in (-1, 1))
            axes.axvspan(low, high, alpha=0.2, label="within the seeds' noise")
            axes.legend()
    panels[0].set_yticks(table.index, table["name"] + " " + table["differs"])
    panels[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    cli.run(main)
