"""The MLflow store: `MLFLOW_TRACKING_URI` if set, else mlflow.db in the repository's root."""

import logging
import os
import platform
import re
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

import psutil
import urllib3
from filelock import FileLock

from vae.cli import UserError, one_line
from vae.files import written_whole
from vae.mirror import shown
from vae.params import Tracking
from vae.tracking.pages import experiment_tags

# Seconds to wait for an answer of a server, or for a locked database.
TIMEOUT = 4
# Loggers of each retry with its traceback; `Store.errors` gets the error too.
NOISY = ("mlflow.store.db.utils", "urllib3.connectionpool")
# A server's address. A user's password has no @ / ? #, so that no part of it is taken for the host.
SERVER = re.compile(r"https?://([^@/?#]*@)?[^@/?#]+([/?][^@#]*)?", re.IGNORECASE)
# Removed from an error's message: SQL, all before the cause of an HTTP error, names of objects.
NOISE = re.compile(r" \[SQL: .*|^.*\(Caused by |<[^<>]* at 0x\w+>: ")


class Store:
    """MLflow's client and the experiment that has the runs. Raises UserError.

    `artifacts` is the folder of the runs' files, beside a local database; None for a server.
    """

    def __init__(self, settings: Tracking) -> None:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Of which MLFLOW_TRACKING_INSECURE_TLS makes one for each request.
        urllib3.disable_warnings()
        self.artifacts: Path | None = None
        self.uri = (os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db").rstrip("/")
        with self.errors():
            if self.uri.startswith("sqlite:///"):
                self._open_database(settings.experiment)
            else:
                self._check_server()
                self._open_experiment(settings.experiment)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an error of the store into a UserError of one line, without the password."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            message = NOISE.sub("", one_line(error).replace(self.uri, shown(self.uri)))
            if "certificate" in message:
                message += "; MLFLOW_TRACKING_SERVER_CERT_PATH names a file with the one to trust"
            reason = textwrap.shorten(message, 300)
            raise UserError(
                f"cannot use the MLflow store {shown(self.uri)} ({reason}); fix it, name another "
                "in MLFLOW_TRACKING_URI, or set tracking.enabled to false in params.yaml; `make "
                "track` logs later what is missing"
            ) from None

    def _open_experiment(self, name: str, artifacts: str | None = None) -> None:
        """Make the client, and the experiment if it is missing; update its note, its views and the
        status of killed runs."""
        from mlflow import MlflowClient
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self.client = MlflowClient(self.uri)
        if not (found := self.client.get_experiment_by_name(name)):
            self.client.create_experiment(name, artifacts)
            found = self.client.get_experiment_by_name(name)
        self.experiment = found.experiment_id
        if found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {self.experiment}"
            raise OSError(f"the experiment {name} is deleted; `{restore}` restores it")
        place = found.artifact_location
        try:
            get_artifact_repository(place, self.uri).list_artifacts()
        except Exception as error:  # a missing package of such a place, or any error that it raises
            raise OSError(f"its files go to {shown(place)}: {one_line(error)}") from None
        for key, text in experiment_tags(self.experiment).items():
            if found.tags.get(key) != text:
                self.client.set_experiment_tag(self.experiment, key, text)
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get("process", "").rpartition(":")
            if host == platform.node() and not psutil.pid_exists(int(process)):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _check_server(self) -> None:
        """Raise UserError or OSError, soon, unless a server of MLflow 3 answers. The request is one
        of MLflow's client, with the user's certificates, passwords and proxies."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        if not SERVER.fullmatch(self.uri):  # an error's message could show a part of the password
            raise UserError(
                "MLFLOW_TRACKING_URI should be like http://HOST:5000 or sqlite:///FILE, with "
                "/ : @ # ? in a password written as %2F %3A %40 %23 %3F"
            )
        request = get_default_host_creds(self.uri), "/version", "GET"
        answer = http_request(*request, max_retries=0, timeout=TIMEOUT, raise_on_status=False)
        # Where a proxy keeps this page to itself, the next request shows an error.
        if re.match(r"[0-2]\.\d", answer.text):
            raise OSError(f"the server has MLflow {answer.text}; 3 or later is needed")

    def _open_database(self, experiment: str) -> None:
        """Open an SQLite file; create it if it is missing."""
        from mlflow import MlflowClient

        path = unquote(self.uri.removeprefix("sqlite:///").partition("?")[0])
        # DVC runs an experiment in a temporary folder, with the repository's root in DVC_ROOT.
        database = Path(os.environ.get("DVC_ROOT", ""), path).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        self.uri = _sqlite_uri(database)
        # Processes that open a new database at once would each create its tables, and crash.
        with FileLock(f"{database}.lock", timeout=60):
            if not database.exists():
                # MLflow cannot use a database with half of the tables, which a kill may leave.
                with written_whole(database) as temporary:
                    for left in temporary.parent.glob(f"{temporary.name}*"):
                        left.unlink()
                    MlflowClient(_sqlite_uri(temporary)).search_experiments(max_results=1)
            self.artifacts = database.parent / "mlartifacts"
            # MLflow would try a locked or damaged file for minutes.
            with closing(sqlite3.connect(database, timeout=TIMEOUT)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                _move_artifacts(connection, experiment, self.artifacts)
            self._open_experiment(experiment, self.artifacts.as_uri())


def _sqlite_uri(path: Path) -> str:
    """A database's address, in which SQLAlchemy gives ? and % a meaning of their own."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def _move_artifacts(connection: sqlite3.Connection, experiment: str, folder: Path) -> None:
    """Set `folder`, beside the database, as the place of an experiment's files.

    After a checkout is copied or renamed, MLflow would still write to the original's folder. An
    `mlflow ui` with this database, which keeps them there too, stores no folder.
    """
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    for (before,) in connection.execute(query, [experiment]).fetchall():
        old = re.match("file:.*/mlartifacts(?=/|$)|mlflow-artifacts:", before)
        if old and old[0] != folder.as_uri():
            for table in ("experiments", "runs", "logged_models"):
                column = "artifact_uri" if table == "runs" else "artifact_location"
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                connection.execute(change, [old[0], folder.as_uri()])
