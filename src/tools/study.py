"""Train many times, with other seeds and parameters, on this machine's cores or a Ray cluster.

Finished trials are kept in OUTPUT.partial as they come; an interrupted study continues from there.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import src_path  # noqa: F401
from vae import cli
from vae.cli import UserError
from vae.data import Split, load_split
from vae.files import md5, records, write_csv, write_json, written_whole
from vae.params import MODELS, check_params
from vae.report import figures as draw
from vae.reproduction.intervals import (
    DEFAULTS,
    LOSSES,
    paired_differences,
    prediction_intervals,
    read_rows,
)
from vae.reproduction.published import load_published
from vae.reproduction.verdicts import seedless
from vae.study.cluster import run_trials
from vae.study.trials import Trial, append_rows, plan, take_over

DATA = Path("data/binarized")


def main() -> None:
    options = parse()
    splits = load_split(DATA, "train"), load_split(DATA, "test")
    data = [md5(DATA / f"{name}.safetensors") for name in ("train", "test")]
    trials = plan(options.models, options.seeds, dict(options.set), data)
    lock = FileLock(f"{options.output}.lock", blocking=False)
    try:
        with lock:
            train_missing(options, trials, splits)
    except Timeout:
        raise UserError(
            f"another study is at work on {options.output}; wait for its end, or name another "
            "--output"
        ) from None


def train_missing(
    options: argparse.Namespace, trials: list[Trial], splits: tuple[Split, Split]
) -> None:
    """Train what the table does not have yet, and write table, summary and figure."""
    partial = options.output.with_name(f"{options.output.name}.partial")
    finished = take_over(options.output, partial, trials)
    ended = set(finished["trial"])
    print(f"{len(trials)} trials, {len(ended)} of them finished before", flush=True)

    missing = [trial for trial in trials if trial.fingerprint not in ended]
    resources = (options.address, options.cpus_per_trial, options.gpus_per_trial)
    failures = {}
    for trial, result in run_trials(missing, splits, *resources):
        if isinstance(result, str):
            failures[str(trial)] = result
        else:
            append_rows(partial, result)
    # In the plan's order, whichever trial ended first.
    order = {trial.fingerprint: number for number, trial in enumerate(trials)}
    rows = read_rows(partial).sort_values("trial", key=lambda name: name.map(order), kind="stable")
    if len(rows):
        defaults = [trial for trial in trials if trial.arm == DEFAULTS]
        parameters = {trial.model: seedless(trial.params, trial.model) for trial in defaults}
        finish(rows, failures, parameters, options.output)
    partial.unlink()
    if failures:
        reasons = "; ".join(f"{trial}: {reason}" for trial, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(trials)} trials failed: {reasons}")


def parse() -> argparse.Namespace:
    """Read the command line. A mistake in it ends the script with the usage and one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seeds", type=seeds, default="0-19", help="as in 0-19 or 1,5,7-9 (%(default)s)")
    help_set = "values to try for a key of params.yaml; given several times, all combinations"
    add("--set", type=override, action="append", default=[], metavar="KEY=VALUE,...", help=help_set)
    add("--models", type=lambda text: text.split(","), default="20d,2d", help="%(default)s")
    add("--output", type=Path, default=Path("studies/seeds.csv"), help="%(default)s")
    add("--address", help="of a Ray cluster, as is RAY_ADDRESS; without, Ray starts here")
    add("--cpus-per-trial", type=int, default=1, help="%(default)s")
    add("--gpus-per-trial", type=float, default=0.25, help="where there are any (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"there is no model {', '.join(unknown)}; it should be {' or '.join(MODELS)}")
    if options.cpus_per_trial < 1 or not 0 <= options.gpus_per_trial <= 1:
        parser.error("a trial takes at least one CPU and between 0 and 1 GPU")
    return options


def seeds(text: str) -> list[int]:
    """List the seeds that `0-19` or `1,5,7-9` names."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or not 0 <= min(found) <= max(found) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} names no seeds of 0 to 2^32 - 1")
    return found


def override(text: str) -> tuple[str, list[Any]]:
    """Split into a key and its values, which are YAML: `train.epochs=5,10`."""
    key, _, values = text.partition("=")
    try:
        found = YAML(typ="safe").load(f"[{values}]")
    except YAMLError:
        found = []
    if not (key and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE,VALUE")
    return key, found


def finish(
    rows: pd.DataFrame, failures: dict[str, str], parameters: dict[str, Any], output: Path
) -> None:
    """Write the table, its summary as JSON and the figure as PNG; print the last epoch.

    `parameters` are those of the models in the arm of the defaults, beside the seed.
    """
    losses = prediction_intervals(rows, LOSSES, ["model", "arm", "epoch"])
    noise = prediction_intervals(rows, ["noise_kl"], ["model", "arm"])
    differences = paired_differences(rows, "test_loss")
    tables = {"losses": losses, "noise_kl": noise, "test_loss_differences": differences}
    summary = {name: records(table) for name, table in tables.items()}
    write_json(
        output.with_suffix(".json"), {**summary, "failures": failures, "parameters": parameters}
    )
    params = check_params(Path("params.yaml"))
    of_data = Path("data/published"), params.download.dataset, params.binarize
    published = load_published(*of_data).losses
    with written_whole(output.with_suffix(".png")) as path:
        draw.save_figure(path, draw.study_bands(losses, published))
    write_csv(output, rows)
    last = losses[losses["epoch"] == losses.groupby(["model", "arm"])["epoch"].transform("max")]
    print(last.drop(columns="epoch").to_string(index=False, float_format="{:.3f}".format))
    if len(differences):
        print("test loss after the last epoch, arm minus the first arm, seed by seed:")
        print(differences.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    cli.run(main)
