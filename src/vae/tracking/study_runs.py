"""A study in MLflow: a run for it, and below it one for each trial."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vae.params import flat, read_params
from vae.study.trials import Trial
from vae.tracking.origin import origin
from vae.tracking.store import Store

import pandas as pd

# The most that MLflow gives at once.
MOST_RUNS = 50_000


@contextmanager
def track_study(
    name: str, trials: Iterable[Trial], finished: pd.DataFrame
) -> Iterator[Callable[[Trial, list[dict[str, Any]]], None]]:
    """Start or go on with a study's run; yield what logs a trial that has ended, as a child of it.

    `finished` are the rows of trials that ended before; those that have no child yet get one.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        yield lambda trial, rows: None
        return
    store = Store(settings)
    planned = {trial.fingerprint: trial for trial in trials}
    study = hashlib.md5(" ".join(sorted(planned)).encode()).hexdigest()

    def runs(query: str) -> list:
        return store.client.search_runs([store.experiment], query, max_results=MOST_RUNS)

    def log_trial(trial: Trial, rows: list[dict[str, Any]]) -> None:
        values = {"seed": trial.seed, "train": trial.params.train, "model": trial.architecture}
        tags = {"mlflow.parentRunId": parent, "model": trial.model, "trial": trial.fingerprint}
        with store.errors():
            run_id = store.start_run(str(trial), flat(values), tags)
            for row in rows:
                store.log_points(run_id, row)
            store.client.set_terminated(run_id, "FINISHED")

    with store.errors():
        store.close_killed()
        found = [run.info.run_id for run in runs(f"tags.study = '{study}'")]
        tags = {"study": study, **origin()}
        parent = found[0] if found else store.start_run(f"study {name}", {}, tags)
        store.client.update_run(parent, status="RUNNING")
        children = runs(f"tags.`mlflow.parentRunId` = '{parent}' and status = 'FINISHED'")
    logged = {run.data.tags["trial"] for run in children}
    for fingerprint, rows in finished.groupby("trial"):
        if fingerprint not in logged:
            log_trial(planned[fingerprint], rows.to_dict("records"))
    with store.failure_marked(parent):
        yield log_trial
    with store.errors():
        store.client.set_terminated(parent, "FINISHED")
