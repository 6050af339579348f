"""The trials of a study: the stages' training, many times, with other seeds and parameters."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vae.cli import UserError
from vae.data import Split
from vae.files import write_csv, write_text
from vae.identity import identity
from vae.params import Model, Params, check_params, flat, training_params
from vae.reproduction.intervals import DEFAULTS, read_rows
from vae.scores import kl_scores, noise_images
from vae.training import fit, prepare


class Trial(NamedTuple):
    """One training of `model`. `arm` names what its parameters differ in from params.yaml's, beside
    the seed: the same parameters have the same arm, whichever way they were asked for."""

    model: str
    arm: str
    seed: int
    params: Params
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.model}, {self.arm}, seed {self.seed}"

    @property
    def architecture(self) -> Model:
        return getattr(self.params, f"train_{self.model}")


def plan(
    models: Sequence[str], seeds: Iterable[int], grid: Mapping[str, Sequence[Any]], data: list[str]
) -> list[Trial]:
    """Make a trial for each model, seed and combination of the grid's values.

    `data` has the MD5 sums of the data files. Raises UserError where params.yaml allows no such
    key or value, and for a key that no training of these models reads.
    """
    groups = ["figures", "train", *(f"train-{model}" for model in models)]
    for key in grid:
        if key.partition(".")[0] not in groups:
            raise UserError(
                f"--set {key}: no training of {' or '.join(models)} reads it; allowed are keys of "
                f"{', '.join(groups)}, and seeds by --seeds"
            )
    trials, path = {}, Path("params.yaml")
    committed = check_params(path)
    for values in itertools.product(*grid.values()):
        of_arm = check_params(path, dict(zip(grid, values, strict=True)))
        for model, seed in itertools.product(models, seeds):
            params = of_arm.model_copy(update={"seed": seed})
            values_of_trial = flat(training_params(params, model))
            key = identity(values_of_trial, data)
            before = flat(training_params(committed, model)) | {"seed": str(seed)}
            differs = [
                f"{name.replace('model.', f'train-{model}.')}={value}"
                for name, value in values_of_trial.items()
                if before[name] != value
            ]
            trials[key] = Trial(model, " ".join(differs) or DEFAULTS, seed, params, key)
    return list(trials.values())


def run_trial(trial: Trial, train: Split, test: Split) -> list[dict[str, Any]]:
    """Train with the bits of the stages. Return a row for each epoch.

    The last one has the KL of the seed's noise image, in nats.
    """
    start = prepare(
        trial.seed, trial.params.figures, trial.params.train, trial.architecture, train, test
    )
    names = {"trial": trial.fingerprint, "model": trial.model, "arm": trial.arm, "seed": trial.seed}
    epochs = fit(start, trial.params.train)
    rows = [{**names, **epoch.row(), "noise_kl": None} for epoch in epochs]
    noise = noise_images(np.random.RandomState(trial.seed), 1)
    (rows[-1]["noise_kl"],) = kl_scores(start.network, noise).tolist()
    return rows


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append a finished trial's rows to a CSV, with one write."""
    header = not path.stat().st_size
    text = pd.DataFrame(rows).to_csv(index=False, header=header, lineterminator="\n")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def take_over(output: Path, partial: Path, trials: list[Trial]) -> pd.DataFrame:
    """Begin the partial file with the rows of trials that ended before. Raises UserError."""
    planned = [trial.fingerprint for trial in trials]
    before = read_rows(output)
    if not before["trial"].isin(planned).all():
        raise UserError(
            f"{output} holds trials of another study (other parameters, seeds, data or PyTorch); "
            "name another --output, or move it away"
        )
    rows = pd.concat([table for table in (before, read_rows(partial)) if len(table)] or [before])
    rows = rows[rows["trial"].isin(planned)]
    # What an arm is called may differ from study to study: defaults, or a value that equals them.
    rows["arm"] = rows["trial"].map({trial.fingerprint: trial.arm for trial in trials})
    if len(rows):
        write_csv(partial, rows)
    else:
        write_text(partial, "")
    return rows
