"""The MLflow store: `MLFLOW_TRACKING_URI` if set, else mlflow.db in the repository's root."""

import logging
import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

import psutil
import requests
from filelock import FileLock

from vae.cli import UserError, one_line
from vae.files import shown, written_whole
from vae.params import Tracking

# Seconds to wait for a server that says nothing, or for a locked database.
PATIENCE = 4
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
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.uri = (os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db").rstrip("/")
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
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = one_line(error).replace(self.uri, shown(self.uri))
            if "Caused by" in reason:  # the last of a chain of the HTTP library's errors
                reason = reason.rpartition(": ")[2].rstrip("\")'")
            raise UserError(
                f"cannot use the MLflow store {shown(self.uri)} ({reason}). Correct that, name "
                "another in MLFLOW_TRACKING_URI, or set tracking.enabled to false in params.yaml; "
                "`make track` logs later what is missing"
            ) from None

    def _open(self, experiment: str, artifacts: str | None = None) -> None:
        """Make the client, and the experiment where it is missing; bring its note and its view, and
        the status of killed runs, up to date."""
        from mlflow import MlflowClient

        self.client = MlflowClient(self.uri)
        if not (found := self.client.get_experiment_by_name(experiment)):
            self.client.create_experiment(experiment, artifacts)
            found = self.client.get_experiment_by_name(experiment)
        self.experiment = found.experiment_id
        note = NOTE.format(f"#/experiments/{self.experiment}/runs?{SHOWN}")
        for key, text in {"mlflow.note.content": note, VIEW_TAG: VIEW.read_text()}.items():
            if found.tags.get(key) != text:
                self.client.set_experiment_tag(self.experiment, key, text)
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get("process", "").rpartition(":")
            if host == platform.node() and not psutil.pid_exists(int(process)):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _reach(self) -> None:
        """Raise UserError or OSError, soon, where nothing answers."""
        try:
            requests.get(f"{self.uri}/health", timeout=PATIENCE)
        except requests.exceptions.InvalidURL:  # whose words may be a part of a password
            raise UserError(
                "MLFLOW_TRACKING_URI is no valid address; it should be like http://HOST:5000 or "
                "sqlite:///FILE, with what a password has of / : @ as %2F %3A %40"
            ) from None

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


def _sqlite_uri(path: Path) -> str:
    """A database's address, in which SQLAlchemy takes a ? for a query and a % for a code."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def _move_artifacts(connection: sqlite3.Connection, experiment: str, place: str) -> None:
    """Let an experiment's files be where its database is: MLflow keeps their old folder's name when
    a checkout is renamed or copied, and would write into the original."""
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    for (before,) in connection.execute(query, [experiment]).fetchall():
        if before != place and before.endswith("/mlartifacts"):
            for table in ("experiments", "runs", "logged_models"):
                column = "artifact_uri" if table == "runs" else "artifact_location"
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                connection.execute(change, [before, place])
