"""A study's trials: the stages' training, repeated with other seeds and parameters."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vae.cli import UserError
from vae.data import Split
from vae.files import write_csv
from vae.grid import Grid, combinations
from vae.identity import identity
from vae.inference import kl_scores
from vae.params import Params, check_params, flat, training_params
from vae.reproduction.intervals import DEFAULTS, read_rows
from vae.scores import noise_images
from vae.training import fit, prepare


class Trial(NamedTuple):
    """One training of `model`; `arm` names the parameters that differ from params.yaml's."""

    model: str
    arm: str
    seed: int
    params: Params
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.model}, {self.arm}, seed {self.seed}"


def plan(models: Sequence[str], seeds: Iterable[int], grid: Grid, data: list[str]) -> list[Trial]:
    """Make one trial per model, seed and combination of the grid's values.

    `data` has the checksums of the data files. Raises UserError for a key that no training of these
    models reads, and for a value that is not allowed.
    """
    groups = ["figures", "train", *(f"train-{model}" for model in models)]
    for key in grid:
        if key.partition(".")[0] not in groups:
            raise UserError(
                f"--set {key}: no training of {' or '.join(models)} reads it; allowed are keys of "
                f"{', '.join(groups)}, and seeds by --seeds"
            )
    trials = {}
    committed = check_params(Path("params.yaml"))
    for arm_params in combinations(grid):
        for model, seed in itertools.product(models, seeds):
            params = arm_params.model_copy(update={"seed": seed})
            values = flat(training_params(params, model))
            defaults = flat(training_params(committed, model)) | {"seed": str(seed)}
            differs = [
                f"{name.replace('model.', f'train-{model}.')}={value}"
                for name, value in values.items()
                if defaults[name] != value
            ]
            key = identity(values, data)
            trials[key] = Trial(model, " ".join(differs) or DEFAULTS, seed, params, key)
    return list(trials.values())


def run_trial(trial: Trial, train: Split, test: Split) -> list[dict[str, Any]]:
    """Train as the stages do, with the same bits; return one row per epoch.

    The last row has the KL of the seed's noise image, in nats.
    """
    params = trial.params
    architecture = training_params(params, trial.model)["model"]
    start = prepare(params.seed, params.figures, params.train, architecture, train, test)
    names = {"trial": trial.fingerprint, "model": trial.model, "arm": trial.arm, "seed": trial.seed}
    epochs = fit(start, params.train)
    rows = [{**names, **epoch.row(), "noise_kl": None} for epoch in epochs]
    noise = noise_images(np.random.RandomState(trial.seed), 1)
    (rows[-1]["noise_kl"],) = kl_scores(start.model, noise).tolist()
    return rows


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append a finished trial's rows to a CSV in a single write."""
    text = pd.DataFrame(rows).to_csv(index=False, header=not path.exists(), lineterminator="\n")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def resume_study(output: Path, trials: list[Trial]) -> pd.DataFrame:
    """Read the finished trials of an interrupted study and remove unfinished rows from its table.

    Raises UserError if the table has trials of another study.
    """
    arms = {trial.fingerprint: trial.arm for trial in trials}
    rows = read_rows(output)
    if not rows["trial"].isin(arms).all():
        raise UserError(
            f"{output} holds trials of another study (other parameters, seeds, data or PyTorch); "
            "name another --output, or move it away"
        )
    # The same parameters have another arm in a study with other defaults.
    rows["arm"] = rows["trial"].map(arms)
    if len(rows):
        write_csv(output, rows)
    else:
        output.unlink(missing_ok=True)
    return rows
