"""Compare DVC's experiments: both models' test losses, and parameters that differ from the commit.

Given values of parameters, run their combinations first, each as an experiment.
"""

import argparse
import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from shlex import quote
import src_path  # noqa: F401

import pandas as pd
from dvc.api import exp_show

from repro import dvc
from vae import cli
from vae.cli import UserError
from vae.custom_data import CUSTOM
from vae.git import check_whole, committed, git
from vae.grid import Grid, combinations, dvc_options, read_grid
from vae.params import MODELS, Params
from vae.reproduction.verdicts import VERDICTS

GROUPS = [field.alias or name for name, field in Params.model_fields.items()]
# The row of the last commit, after the workspace's.
COMMIT = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    help_grid = "values for a key of params.yaml; for several keys, all combinations"
    parser.add_argument("grid", nargs="*", metavar="KEY=VALUE,...", help=help_grid)
    grid = read_grid(" ".join(parser.parse_args().grid))
    queued = run_queue(grid) if grid else set()
    table = experiments()
    print("\n".join(lines(table, seed_noise())))
    if failed := queued - set(table["name"][table[[*MODELS]].notna().all(axis=1)]):
        names = ", ".join(sorted(failed))
        raise UserError(f"{len(failed)} of {len(queued)} experiments have no results: {names}")


def run_queue(grid: Grid) -> set[str]:
    """Queue an experiment for each combination and run DVC's queue; return the queued names.

    Raises UserError if all of them would fail or be lost.
    """
    for place in {params.download.dataset for params in combinations(grid)}:
        untracked = git("ls-files", "--others", "--exclude-from=.dvcignore", "--", place)
        if place.startswith(CUSTOM) and untracked and not git("ls-files", f"{place}.dvc"):
            raise UserError(
                f"experiments use only files tracked by git or DVC, and {place} is not: git add "
                f"{quote(place)}, or dvc add {quote(place)} && git add {quote(f'{place}.dvc')}"
            )
    check_whole()
    if dvc("exp", "run", "--queue", *dvc_options(grid)):
        raise UserError("no experiment was queued, for the reason above")
    queued = {row["Experiment"] for row in exp_show() if row["State"] == "Queued"}
    dvc("exp", "run", "--run-all")
    return queued


def experiments() -> pd.DataFrame:
    """List the workspace, the last commit and all experiments, also those of earlier commits.

    Columns: `name`; the last test loss of each model in nats, NaN unless the experiment succeeded;
    `differs`, with the state of one that did not, and the parameters that differ from the commit.
    """
    references = git("for-each-ref", "--format=%(refname)", "refs/exps")
    parents = {"".join(found) for found in re.findall("^refs/exps/(..)/(.{38})/", references, re.M)}
    shown = pd.DataFrame(exp_show(revs=["HEAD", *sorted(parents)]))
    shown = shown[(shown.index <= COMMIT) | (shown["typ"] != "baseline")].reset_index(drop=True)
    name = shown["Experiment"].fillna(shown["rev"])
    state = shown["State"].replace("Success", None).fillna("").str.lower()
    table = pd.DataFrame({"name": name.mask(name.duplicated(False), name + " " + shown["rev"])})
    for model in MODELS:
        losses = pd.to_numeric(shown[f"{model}.test_loss"], errors="coerce")
        table[model] = losses.where(state == "")
    params = shown[[key for key in shown if key.partition(".")[0] in GROUPS]].astype(str)
    params = params.replace(r"\.0$", "", regex=True)  # DVC returns all numbers as floats
    table["differs"] = state
    for key in params:
        changed = (" " + key + "=" + params[key]).where(params[key] != params[key][COMMIT], "")
        table["differs"] += changed
    table["differs"] = table["differs"].str.strip()
    return table


def seed_noise() -> dict[str, float]:
    """Half the width of a 99 % interval for the difference of two seeds' last test losses, in nats,
    of each model that was studied with the commit's parameters and data."""
    results = json.loads(committed("metrics/reproduction.json") or '{"published": []}')
    noise = {}
    for row in sorted(results["published"], key=lambda row: row["epoch"]):
        if row["split"] == "test" and row["verdict"] != VERDICTS[3]:
            # The interval is for the difference of one seed from the mean of n.
            noise[row["model"]] = (row["high"] - row["low"]) / math.sqrt(2 + 2 / row["n"])
    return noise


def lines(table: pd.DataFrame, noise: Mapping[str, float]) -> Iterator[str]:
    """Format each row, with its losses and their changes from the commit's, in 80 columns."""
    width = table["name"].str.len().max()
    yield " " * width + "".join(f"{f'{model} test':>10}{'change':>9} " for model in MODELS)
    for _, row in table.iterrows():
        line = f"{row['name']:{width}}"
        for model in MODELS:
            change = row[model] - table.loc[COMMIT, model]
            mark = "~" if 0 < abs(change) <= noise.get(model, 0) else " "
            cell = f"{row[model]:10.3f}{change:+9.3f}{mark}"
            line += " " * len(cell) if math.isnan(change) else cell
        line = f"{line} {row['differs']}"
        yield textwrap.fill(line, 80, subsequent_indent="    ", break_on_hyphens=False)
    if noise:
        nats = ", ".join(f"{model} {noise[model]:.2f}" for model in noise)
        yield f"~ within the seeds' noise (99 % of pairs of seeds): {nats} nats"


if __name__ == "__main__":
    cli.run(main)
