"""Train many times, with other seeds and parameters, on this machine's cores or a Ray cluster.

Each trial is added to OUTPUT when it ends; an interrupted study resumes from there.
"""

import argparse
from pathlib import Path
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
from vae.report.figures import save_figure, study_bands
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
            rows = read_rows(options.output)
            if len(rows):
                write_results(rows, trials, failures, options.output)
    except Timeout:
        raise UserError(
            f"{options.output} is in use by another study; name another --output"
        ) from None
    if failures:
        reasons = "; ".join(f"{trial}: {reason}" for trial, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(trials)} trials failed: {reasons}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seeds", type=seeds, default="0-19", help="as in 0-19 or 1,5,7-9 (%(default)s)")
    help_set = "values for a key of params.yaml; if given several times, all combinations"
    metavar = "KEY=VALUE,..."
    add("--set", type=key_values, action="append", default=[], metavar=metavar, help=help_set)
    add("--models", nargs="+", choices=MODELS, default=MODELS, help="both by default")
    add("--output", type=Path, default=Path("studies/seeds.csv"), help="%(default)s")
    add("--address", help="of a Ray cluster, as in RAY_ADDRESS; by default Ray starts here")
    return parser.parse_args()


def seeds(text: str) -> list[int]:
    """List the seeds in `0-19` or `1,5,7-9`."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or not 0 <= min(found) <= max(found) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} has no seeds between 0 and 2^32 - 1")
    return found


def train_missing(trials: list[Trial], output: Path, address: str | None) -> dict[str, str]:
    """Run the trials that are not in the table, and append them; return why trials failed."""
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
    return failures


def write_results(
    rows: pd.DataFrame, trials: list[Trial], failures: dict[str, str], output: Path
) -> None:
    """Write the table, its summary as JSON and the figure; print the last epoch."""
    # In the plan's order, whichever trial ended first.
    order = {trial.fingerprint: number for number, trial in enumerate(trials)}
    rows = rows.sort_values("trial", key=lambda names: names.map(order), kind="stable")
    losses = prediction_intervals(rows, LOSSES, ["model", "arm", "epoch"])
    differences = paired_differences(rows, "test_loss")
    defaults = [trial for trial in trials if trial.arm == DEFAULTS]
    summary = {
        "losses": records(losses),
        "noise_kl": records(prediction_intervals(rows, ["noise_kl"], ["model", "arm"])),
        "test_loss_differences": records(differences),
        "failures": failures,
        "parameters": {trial.model: seedless(trial.params, trial.model) for trial in defaults},
    }
    write_json(output.with_suffix(".json"), summary)
    params = check_params(Path("params.yaml"))
    published = load_published(Path("data/published"), params.download.dataset, params.binarize)
    save_figure(output.with_suffix(".png"), study_bands(losses, published.losses))
    write_csv(output, rows)
    last = losses[losses["epoch"] == losses.groupby(["model", "arm"])["epoch"].transform("max")]
    print(last.drop(columns="epoch").to_string(index=False, float_format="{:.3f}".format))
    if len(differences):
        print("test loss after the last epoch, minus the first arm's with the same seed:")
        print(differences.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    cli.run(main)
