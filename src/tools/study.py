"""Train many times, with other seeds and parameters, on this machine's cores or a Ray cluster.

Finished trials are kept in OUTPUT.partial as they come, so an interrupted study goes on where it was.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import argparse
from pathlib import Path
from typing import Any

from vae.cli import UserError
from vae.data import load_split
from vae.files import md5, write_json, write_text, written_whole
from vae.params import MODELS
from vae.report import figures as draw
from vae.reproduction.intervals import LOSSES, paired_differences, prediction_intervals, read_rows
from vae.reproduction.published import load_published
from vae.study.cluster import run_trials
from vae.study.trials import append_rows, plan
from vae.tracking.study_runs import track_study

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

DATA = Path("data/binarized")


def main() -> None:
    options = parse()
    train, test = load_split(DATA, "train"), load_split(DATA, "test")
    data = [md5(DATA / f"{name}.safetensors") for name in ("train", "test")]
    trials = plan(options.models, options.seeds, dict(options.set), data)
    partial = options.output.with_name(f"{options.output.name}.partial")
    finished = take_over(options.output, partial, [trial.fingerprint for trial in trials])
    ended = set(finished["trial"])
    print(f"{len(trials)} trials, {len(ended)} of them finished before", flush=True)

    missing = [trial for trial in trials if trial.fingerprint not in ended]
    failures = {}
    with track_study(options.output.stem, trials, finished) as log_trial:
        for trial, result in run_trials(
            missing,
            len(ended),
            train,
            test,
            options.address,
            options.cpus_per_trial,
            options.gpus_per_trial,
        ):
            if isinstance(result, str):
                failures[str(trial)] = result
            else:
                append_rows(partial, result)
                log_trial(trial, result)

    rows = read_rows(partial)
    # In the plan's order, so that the file does not tell which trial ended first.
    order = {trial.fingerprint: number for number, trial in enumerate(trials)}
    rows = rows.sort_values("trial", key=lambda trial: trial.map(order), kind="stable")
    if len(rows):
        finish(rows, failures, options.output)
    partial.unlink()
    if failures:
        reasons = "; ".join(f"{trial}: {reason}" for trial, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(trials)} trials failed: {reasons}")


def parse() -> argparse.Namespace:
    """The command line. A mistake in it ends the script with the usage and one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seeds", type=seeds, default=seeds("0-19"), help="as in 0-19 or 1,5,7-9 (0-19)"
    )
    parser.add_argument(
        "--set",
        type=override,
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values to try for a key of params.yaml; given several times, all combinations",
    )
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=list(MODELS), help="20d,2d"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("studies/seeds.csv"), help="studies/seeds.csv"
    )
    parser.add_argument(
        "--address", help="of a Ray cluster; RAY_ADDRESS does as well, none starts Ray here"
    )
    parser.add_argument("--cpus-per-trial", type=int, default=1, help="1")
    parser.add_argument(
        "--gpus-per-trial", type=float, default=0.25, help="where there are any (0.25)"
    )
    options = parser.parse_args()
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"there is no model {', '.join(unknown)}; it should be {' or '.join(MODELS)}")
    if options.cpus_per_trial < 1 or not 0 <= options.gpus_per_trial <= 1:
        parser.error("a trial takes at least one CPU and between 0 and 1 GPU")
    return options


def seeds(text: str) -> list[int]:
    """The seeds that `0-19` or `1,5,7-9` names."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or not 0 <= min(found) <= max(found) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} names no seeds of 0 to 2^32 - 1")
    return found


def override(text: str) -> tuple[str, list[Any]]:
    """A key and its values, read as YAML: `train-20d.hidden_sizes=[400],[800]` has two lists."""
    key, equals, values = text.partition("=")
    try:
        found = YAML(typ="safe").load(f"[{values}]")
    except YAMLError:
        found = []
    if not (key and equals and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE,VALUE")
    return key, found


def take_over(output: Path, partial: Path, planned: list[str]) -> pd.DataFrame:
    """The rows of the planned trials that ended before, which begin the partial file. Raises UserError."""
    before = read_rows(output)
    if not set(before["trial"]) <= set(planned):
        raise UserError(
            f"{output} holds trials of another study (other parameters, seeds, data or code); "
            "name another --output, or move it away"
        )
    rows = pd.concat([table for table in (before, read_rows(partial)) if len(table)] or [before])
    rows = rows[rows["trial"].isin(planned)].drop_duplicates(["trial", "epoch"])
    write_text(partial, rows.to_csv(index=False, lineterminator="\n") if len(rows) else "")
    return rows


def finish(rows: pd.DataFrame, failures: dict[str, str], output: Path) -> None:
    """Write the table, its summary beside it as JSON, and the figure as PNG."""
    by_epoch = prediction_intervals(rows, LOSSES, ["model", "arm", "epoch"])
    noise = prediction_intervals(rows, ["noise_kl"], ["model", "arm"])
    differences = paired_differences(rows, "test_loss")
    tables = {"losses": by_epoch, "noise_kl": noise, "test_loss_differences": differences}
    summary = {name: _records(table) for name, table in tables.items()}
    write_json(output.with_suffix(".json"), {**summary, "failures": failures})
    with written_whole(output.with_suffix(".png")) as path:
        draw.save_figure(path, draw.study_bands(by_epoch, load_published(Path("data/published"))))
    write_text(output, rows.to_csv(index=False, lineterminator="\n"))
    last = by_epoch[
        by_epoch["epoch"] == by_epoch.groupby(["model", "arm"])["epoch"].transform("max")
    ]
    print(last.drop(columns="epoch").to_string(index=False, float_format="{:.3f}".format))
    if len(differences):
        print("test loss after the last epoch, arm minus the first arm, seed by seed:")
        print(differences.to_string(index=False, float_format="{:.3f}".format))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows for JSON, with null where there is no number."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


if __name__ == "__main__":
    cli.run(main)
