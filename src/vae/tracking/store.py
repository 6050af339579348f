"""The MLflow store: `MLFLOW_TRACKING_URI` if set, else mlflow.db in the repository's root."""

import logging
import math
import os
import platform
import socket
import sqlite3
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import requests
from filelock import FileLock

from vae.cli import UserError, one_line
from vae.files import shown, written_whole
from vae.params import Tracking

# Seconds to wait for a server that says nothing, or for a locked database.
PATIENCE = 4
# MLflow would send usage data to its makers, and wait minutes for a lost server.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
# They log each retry with its traceback; the errors come to `Store.errors`.
NOISY = ("mlflow.store.db.utils", "urllib3.connectionpool")
# The columns and charts of a shared view, as MLflow's page keeps one in a tag of the experiment.
VIEW, VIEW_TAG = Path(__file__).with_name("view.json"), "mlflow.sharedViewState.trainings"
SHOWN = "viewStateShareKey=trainings&workflowType=machine_learning"
NOTE = (
    "A run for each training: [table]({0}), [curves and pictures]({0}&compareRunsMode=CHART). "
    "A step is an epoch, 0 is before training."
)


class Store:
    """MLflow's client, and the experiment in which the runs are. Raises UserError."""

    def __init__(self, settings: Tracking) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        with self.errors():
            if self.uri.startswith("sqlite:///"):
                self._open_database(settings.experiment)
            else:
                self._reach()
                self._open(settings.experiment)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an error of the store into a UserError of one line, without the password."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
            reason = one_line(error).replace(self.uri, shown(self.uri))
            if "Caused by" in reason:  # the last of a chain of the HTTP library's errors
                reason = reason.rpartition(": ")[2].rstrip("\")'")
            raise UserError(
                f"cannot use the MLflow store {shown(self.uri)} ({reason}). Correct that, name "
                "another in MLFLOW_TRACKING_URI, or set tracking.enabled to false in params.yaml; "
                "`make track` logs later what is missing"
            ) from None

    def start_run(self, name: str, values: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Start a run with these parameters; return its id."""
        from mlflow.entities import Param

        of_this_process = {
            "process": f"{platform.node()}:{os.getpid()}",
            "mlflow.source.name": sys.argv[0],
            "mlflow.source.type": "LOCAL",
        }
        run = self.client.create_run(
            self.experiment, tags={**of_this_process, **tags}, run_name=name
        )
        params = [Param(key, value) for key, value in values.items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run.info.run_id

    def log_points(self, run_id: str, row: Mapping[str, Any], logged: Container = ()) -> None:
        """Log a row's numbers at its epoch, but for the `logged` pairs of metric and epoch."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now, step = get_current_time_millis(), int(row["epoch"])
        points = [
            Metric(key, value, now, step)
            for key, value in row.items()
            if isinstance(value, float) and math.isfinite(value) and (key, step) not in logged
        ]
        self.client.log_batch(run_id, metrics=points)

    @contextmanager
    def failure_marked(self, run_id: str) -> Iterator[None]:
        """Give the run its status where the block ends in an error: FAILED, or KILLED on Ctrl-C."""
        try:
            yield
        except BaseException as error:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            with suppress(UserError), self.errors():
                self.client.set_terminated(run_id, status)
            raise

    def close_killed(self) -> None:
        """Mark as KILLED the runs that a process of this machine began and did not live to end."""
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get("process", "").rpartition(":")
            if host == platform.node() and not psutil.pid_exists(int(process)):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _open(self, experiment: str, artifacts: str | None = None) -> None:
        """Make the client, and the experiment with its note and view where they are missing."""
        from mlflow import MlflowClient

        self.client = MlflowClient(self.uri)
        if not (found := self.client.get_experiment_by_name(experiment)):
            self.client.create_experiment(experiment, artifacts)
            found = self.client.get_experiment_by_name(experiment)
        self.experiment = found.experiment_id
        if VIEW_TAG not in found.tags:
            note = NOTE.format(f"#/experiments/{self.experiment}/runs?{SHOWN}")
            self.client.set_experiment_tag(self.experiment, "mlflow.note.content", note)
            self.client.set_experiment_tag(self.experiment, VIEW_TAG, VIEW.read_text())

    def _open_database(self, experiment: str) -> None:
        """Open an SQLite file, made where it is missing."""
        from mlflow import MlflowClient

        path = unquote(self.uri.removeprefix("sqlite:///").partition("?")[0])
        # DVC runs an experiment in a temporary folder, with the repository's root in DVC_ROOT.
        database = Path(os.environ.get("DVC_ROOT", ""), path).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        self.uri = _sqlite_uri(database)
        # Processes that open a new database at once would each create its tables, and crash.
        with FileLock(f"{database}.lock", timeout=60):
            if not database.exists():
                # It gets its name when it is whole: MLflow cannot go on with half of the tables.
                with written_whole(database) as temporary:
                    for left in temporary.parent.glob(f"{temporary.name}*"):
                        left.unlink()
                    MlflowClient(_sqlite_uri(temporary)).search_experiments(max_results=1)
            artifacts = (database.parent / "mlartifacts").as_uri()
            # MLflow would try a locked or damaged file for minutes.
            with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                _move_artifacts(connection, experiment, artifacts)
            self._open(experiment, artifacts)

    def _reach(self) -> None:
        """Raise UserError or OSError, soon, where nothing answers."""
        try:
            place = urlsplit(self.uri)
            address = (place.hostname, place.port)
        except ValueError:  # whose words may be a part of a password
            raise UserError(
                "MLFLOW_TRACKING_URI is no valid address; it should be like http://HOST:5000 or "
                "sqlite:///FILE, with what a password has of / : @ as %2F %3A %40"
            ) from None
        if place.scheme in ("http", "https"):
            requests.get(f"{self.uri.rstrip('/')}/health", timeout=PATIENCE)
        elif all(address):
            socket.create_connection(address, PATIENCE).close()


def _sqlite_uri(path: Path) -> str:
    """A database's address, in which SQLAlchemy takes a ? for a query and a % for a code. MLflow
    makes an empty folder of the coded name, too."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def _move_artifacts(connection: sqlite3.Connection, experiment: str, place: str) -> None:
    """Let an experiment's files be where its database is: MLflow keeps their old folder's name when
    a checkout is renamed or copied, and would write into the original."""
    query = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
    for number, before in connection.execute(query, [experiment]).fetchall():
        if before != place and before.endswith("/mlartifacts"):
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                moved = f"{column} = ? || substr({column}, ?)"
                where = f"experiment_id = ? AND substr({column}, 1, ?) = ?"
                values = (place, len(before) + 1, number, len(before), before)
                connection.execute(f"UPDATE {table} SET {moved} WHERE {where}", values)
