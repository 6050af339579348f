"""MLflow mirrors the results: a run for each training, and on it what other stages make from its model.

The runs go to `MLFLOW_TRACKING_URI` if it is set, else to mlflow.db in the repository's root. Nothing that is
written here is read by a stage, so turning tracking off changes no output.
"""

import logging
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil
from filelock import FileLock
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.errors import UserError
from vae.files import md5
from vae.params import Params, Tracking, read_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from vae.params import Group
    from vae.training import Epoch

# MLflow reads it while it is imported, which all here leave for later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# What decides a result and is in git; outputs, which DVC removes before a stage runs, are not looked at.
SOURCES = ("src", "params.yaml", "dvc.yaml", "requirements.lock", "data/published")
MODEL_TAG = "model.md5"


class TrackedRun(Protocol):
    """What a training tells its tracker."""

    def log_epoch(self, epoch: "Epoch") -> None:
        """Log an epoch's losses, with its number as the step."""

    def finish(self, weights: Path, files: Iterable[Path]) -> None:
        """Log the model file and others, and tag the run with the model's fingerprint."""


class Untracked:
    """A run that nobody records."""

    def log_epoch(self, epoch: "Epoch") -> None:
        pass

    def finish(self, weights: Path, files: Iterable[Path]) -> None:
        pass


class MlflowRun:
    """A run in MLflow."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def log_epoch(self, epoch: "Epoch") -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        row = epoch.row()
        metrics = [Metric(name, value, now, row["epoch"]) for name, value in row.items() if name != "epoch"]
        self.client.log_batch(self.run_id, metrics=metrics)

    def finish(self, weights: Path, files: Iterable[Path]) -> None:
        for path in (weights, *files):
            self.client.log_artifact(self.run_id, path, artifact_path="model")
        self.client.set_tag(self.run_id, MODEL_TAG, md5(weights))


@contextmanager
def track_training(
    name: str, params: Mapping[str, "Group | int | str"], data: Iterable[Path]
) -> Iterator[TrackedRun]:
    """A run for the training of model `name`: its parameters, groups as `group.key`, its data, its origin.

    It ends as FINISHED, FAILED or, on Ctrl-C, KILLED. With tracking off, one that records nothing.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        yield Untracked()
        return
    from mlflow.entities import Param, RunTag

    client, experiment = connect(settings)
    close_killed(client, experiment)
    tags = {
        "process": f"{platform.node()}:{os.getpid()}",
        "mlflow.source.name": "src/train.py",
        "mlflow.source.type": "LOCAL",
        "model": name,
        **origin(),
    }
    values = flat(params)
    differs = _differences(values, name)
    run_name = " ".join(filter(None, (name, *differs, os.environ.get("DVC_EXP_NAME"))))
    tags["mlflow.note.content"] = (
        f"Training of the {name} model with {', '.join(differs) or 'the committed parameters'}."
    )
    run_id = client.create_run(experiment, run_name=run_name).info.run_id
    client.log_batch(
        run_id,
        params=[Param(key, value) for key, value in values.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.log_inputs(run_id, [_dataset(path) for path in data])
    try:
        yield MlflowRun(client, run_id)
    except BaseException as error:
        client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def track_results(weights: Path, files: Iterable[Path], scores: Mapping[str, float]) -> None:
    """Log figures and scores made from the model in `weights` on the run that trained it.

    The run is found by the model's fingerprint; of several, the latest. Says so when there is none.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        return
    client, experiment = connect(settings)
    query = f"tags.`{MODEL_TAG}` = '{md5(weights)}'"
    runs = client.search_runs([experiment], query, order_by=["attributes.start_time DESC"], max_results=1)
    if not runs:
        print(f"tracking: no MLflow run trained {weights} as it is now, so its results are not logged")
        return
    run_id = runs[0].info.run_id
    links = []
    for path in files:
        client.log_artifact(run_id, path, artifact_path=path.parent.name or None)
        links.append(f"- [{path.name}](#/experiments/{experiment}/runs/{run_id}/artifacts/{path})")
    note = runs[0].data.tags.get("mlflow.note.content", "").partition("\n")[0]
    client.set_tag(run_id, "mlflow.note.content", "\n".join([note, "", "Figures and report:", "", *links]))
    for key, value in scores.items():
        client.log_metric(run_id, key, value)


def flat(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text under flat names: those of a group as `group.key`."""
    flat = {}
    for name, value in params.items():
        group = value.model_dump() if isinstance(value, BaseModel) else None
        flat |= {f"{name}.{key}": v for key, v in group.items()} if group else {name: value}
    return {name: str(list(value) if isinstance(value, tuple) else value) for name, value in flat.items()}


def connect(settings: Tracking) -> tuple["MlflowClient", str]:
    """A client and the experiment's id, both made where they are missing. Raises UserError."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # How it creates and upgrades its tables is of no interest here.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"
    try:
        if not uri.startswith("sqlite:///"):
            client = MlflowClient(uri)
            return client, _experiment(client, settings.experiment, None)
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        # Processes that open a new database at once would each create its tables, and crash.
        with FileLock(f"{database}.lock"):
            client = MlflowClient(uri)
            # MLflow would keep the artifacts below the current folder, which may be a temporary one.
            return client, _experiment(
                client, settings.experiment, (database.parent / "mlartifacts").as_uri()
            )
    except (MlflowException, OSError) as error:
        shown = uri.rpartition("@")[2]  # without a password
        reason = " ".join(str(error).replace(uri, shown).split())
        raise UserError(
            f"cannot use the MLflow store {shown} ({reason}); "
            "set MLFLOW_TRACKING_URI to another, or tracking.enabled to false in params.yaml"
        ) from None


def close_killed(client: "MlflowClient", experiment: str) -> None:
    """Mark as killed the runs that a process of this machine began and did not live to end."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get("process", "").rpartition(":")
        if host == platform.node() and not psutil.pid_exists(int(process)):
            client.set_terminated(run.info.run_id, "KILLED")


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts)


def origin() -> dict[str, str]:
    """Tags that tell where a run comes from: the git commit, and DVC's stage and experiment."""
    tags = {"dvc.stage": os.environ.get("DVC_STAGE"), "dvc.experiment": os.environ.get("DVC_EXP_NAME")}
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain", "--", *SOURCES))).lower()
    return {key: value for key, value in tags.items() if value}


def _differences(values: Mapping[str, str], name: str) -> list[str]:
    """What a run's flat parameters differ in from the committed ones, as `learning_rate=0.003`."""
    try:
        committed = Params.model_validate(YAML(typ="safe").load(_git("show", "HEAD:params.yaml")))
    except (YAMLError, ValidationError):
        return []
    before = flat({**dict(committed), "model": getattr(committed, f"train_{name}")})
    return [f"{key.rpartition('.')[2]}={value}" for key, value in values.items() if before[key] != value]


def _git(*arguments: str) -> str:
    """The output of a git command; empty where there is no git or no repository."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _dataset(path: Path) -> Any:
    """An input of a run: a data file with its MD5 sum as digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = f'{{"uri": "{path.as_posix()}"}}'
    dataset = Dataset(name=path.stem, digest=md5(path), source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", path.stem)])
