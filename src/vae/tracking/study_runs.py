"""MLflow mirrors a study: a run for it, and below it one for each trial."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vae.params import flat, read_params
from vae.study.trials import Trial
from vae.tracking.client import connect
from vae.tracking.live import log_points
from vae.tracking.origin import origin

import pandas as pd

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def track_study(
    name: str, trials: Iterable[Trial], finished: pd.DataFrame
) -> Iterator[Callable[[Trial, list[dict[str, Any]]], None]]:
    """A run for a study and a child of it for each trial; yields what logs a trial that has ended.

    A study that goes on where it was interrupted keeps its run, and a trial its child; `finished`, rows of
    the trials that ended before, gives those their children that have none yet.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        yield lambda trial, rows: None
        return
    from mlflow.entities import Param

    client, experiment = connect(settings)
    planned = {trial.fingerprint: trial for trial in trials}
    study = hashlib.md5(" ".join(sorted(planned)).encode()).hexdigest()
    found = client.search_runs([experiment], f"tags.`study` = '{study}'", max_results=1)
    tags = {
        "study": study,
        "mlflow.source.name": "src/tools/study.py",
        "mlflow.source.type": "LOCAL",
        **origin(),
    }
    run = found[0] if found else client.create_run(experiment, tags=tags, run_name=f"study {name}")
    parent = run.info.run_id
    client.update_run(parent, status="RUNNING")

    def log_trial(trial: Trial, rows: list[dict[str, Any]]) -> None:
        names = {"mlflow.parentRunId": parent, "model": trial.model, "trial": trial.fingerprint}
        run_id = client.create_run(experiment, tags=names, run_name=str(trial)).info.run_id
        values = {"seed": trial.seed, "train": trial.params.train, "model": trial.architecture}
        client.log_batch(run_id, params=[Param(*pair) for pair in flat(values).items()])
        log_points(client, run_id, rows)
        client.set_terminated(run_id, "FINISHED")

    logged = _children(client, experiment, parent)
    for fingerprint, rows in finished.groupby("trial"):
        if fingerprint not in logged:
            log_trial(planned[fingerprint], rows.to_dict("records"))
    try:
        yield log_trial
    except BaseException as error:
        client.set_terminated(
            parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        )
        raise
    client.set_terminated(parent, "FINISHED")


def _children(client: "MlflowClient", experiment: str, parent: str) -> set[str]:
    """Fingerprints of the trials that have a finished run below `parent`; what a kill left open is closed."""
    logged, page = set(), None
    while True:
        runs = client.search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=page
        )
        for run in runs:
            if run.info.status == "FINISHED":
                logged.add(run.data.tags["trial"])
            elif run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
        if not (page := runs.token):
            return logged
