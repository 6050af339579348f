"""Train many times, with other seeds and parameters, on this machine's cores or a Ray cluster.

OUTPUT has each trial as soon as it is finished; an interrupted study goes on from there.
"""

import argparse
from pathlib import Path
from typing import Any
import src_path  # noqa: F401

import pandas as pd
from filelock import FileLock, Timeout

from vae import cli
from vae.cli import UserError
from vae.data import load_split
from vae.files import md5, records, write_csv, write_json
from vae.grid import key_values
from vae.losses import LOSSES
from vae.params import MODELS, check_params
from vae.report import figures as draw
from vae.reproduction.intervals import DEFAULTS, paired_differences, prediction_intervals, read_rows
from vae.reproduction.published import load_published
from vae.reproduction.verdicts import seedless
from vae.study.cluster import run_trials
from vae.study.trials import Trial, append_rows, plan, resume_study

DATA = Path("data/binarized")


def main() -> None:
    options = parse()
    data = [md5(DATA / f"{name}.safetensors") for name in ("train", "test")]
    trials = plan(options.models, options.seeds, dict(options.set), data)
    try:
        with FileLock(f"{options.output}.lock", blocking=False):
            failures = train_missing(trials, options.output, options.address)
    except Timeout:
        raise UserError(
            f"another study is at work on {options.output}; wait for its end, or name another "
            "--output"
        ) from None
    if failures:
        reasons = "; ".join(f"{trial}: {reason}" for trial, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(trials)} trials failed: {reasons}")


def parse() -> argparse.Namespace:
    """Read the command line. A mistake in it ends the script with the usage and one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seeds", type=seeds, default="0-19", help="as in 0-19 or 1,5,7-9 (%(default)s)")
    help_set = "values to try for a key of params.yaml; given several times, all combinations"
    metavar = "KEY=VALUE,..."
    add("--set", type=key_values, action="append", default=[], metavar=metavar, help=help_set)
    add("--models", nargs="+", choices=MODELS, default=MODELS, help="both, if not given")
    add("--output", type=Path, default=Path("studies/seeds.csv"), help="%(default)s")
    add("--address", help="of a Ray cluster, as is RAY_ADDRESS; without, Ray starts here")
    return parser.parse_args()


def seeds(text: str) -> list[int]:
    """List the seeds that `0-19` or `1,5,7-9` names."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or not 0 <= min(found) <= max(found) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} names no seeds of 0 to 2^32 - 1")
    return found


def train_missing(trials: list[Trial], output: Path, address: str | None) -> dict[str, str]:
    """Train what the table does not have yet, and write table, summary and figure.

    Returns the reason by each trial that failed. Raises UserError.
    """
    finished = set(resume_study(output, trials)["trial"])
    print(f"{len(trials)} trials, {len(finished)} of them finished before", flush=True)
    missing = [trial for trial in trials if trial.fingerprint not in finished]
    splits = load_split(DATA, "train"), load_split(DATA, "test")
    failures = {}
    for trial, result in run_trials(missing, splits, address):
        if isinstance(result, str):
            failures[str(trial)] = result
        else:
            append_rows(output, result)
    rows = read_rows(output)
    if len(rows):
        # In the plan's order, whichever trial ended first.
        order = {trial.fingerprint: number for number, trial in enumerate(trials)}
        rows = rows.sort_values("trial", key=lambda name: name.map(order), kind="stable")
        defaults = [trial for trial in trials if trial.arm == DEFAULTS]
        parameters = {trial.model: seedless(trial.params, trial.model) for trial in defaults}
        finish(rows, {"failures": failures, "parameters": parameters}, output)
    return failures


def finish(rows: pd.DataFrame, facts: dict[str, Any], output: Path) -> None:
    """Write the table, its summary with other `facts` as JSON, and the figure; print the last
    epoch."""
    losses = prediction_intervals(rows, LOSSES, ["model", "arm", "epoch"])
    noise = prediction_intervals(rows, ["noise_kl"], ["model", "arm"])
    differences = paired_differences(rows, "test_loss")
    tables = {"losses": losses, "noise_kl": noise, "test_loss_differences": differences}
    summary = {name: records(table) for name, table in tables.items()}
    write_json(output.with_suffix(".json"), {**summary, **facts})
    params = check_params(Path("params.yaml"))
    of_data = Path("data/published"), params.download.dataset, params.binarize
    figure = draw.study_bands(losses, load_published(*of_data).losses)
    draw.save_figure(output.with_suffix(".png"), figure)
    write_csv(output, rows)
    last = losses[losses["epoch"] == losses.groupby(["model", "arm"])["epoch"].transform("max")]
    print(last.drop(columns="epoch").to_string(index=False, float_format="{:.3f}".format))
    if len(differences):
        print("test loss after the last epoch, arm minus the first arm, seed by seed:")
        print(differences.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    cli.run(main)
