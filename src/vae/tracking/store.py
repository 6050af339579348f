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
from vae.files import shown, written_whole
from vae.params import Tracking
from vae.tracking.pages import experiment_tags

# Seconds to wait for a server that says nothing, or for a locked database.
PATIENCE = 4
# They log each retry with its traceback; the errors come to `Store.errors`.
NOISY = ("mlflow.store.db.utils", "urllib3.connectionpool")
# What a server's address may be: a password has neither / nor any other of what ends its parts.
SERVER = re.compile(
    r"https?://([^/?#@]*@)?(\[[\da-f:.]+\]|[^/?#@:\[\]]+)(:\d+)?([/?].*)?", re.IGNORECASE
)


class Store:
    """MLflow's client, and the experiment in which the runs are. Raises UserError."""

    def __init__(self, settings: Tracking) -> None:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # One for each request where MLFLOW_TRACKING_INSECURE_TLS is set.
        urllib3.disable_warnings()
        self.artifacts: Path | None = None  # a server's own affair
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
            reason = _reason(one_line(error).replace(self.uri, shown(self.uri)))
            raise UserError(
                f"cannot use the MLflow store {shown(self.uri)} ({reason}). Correct that, name "
                "another in MLFLOW_TRACKING_URI, or set tracking.enabled to false in params.yaml; "
                "`make track` logs later what is missing"
            ) from None

    def _open(self, name: str, artifacts: str | None = None) -> None:
        """Make the client, and the experiment where it is missing; bring its note and its views,
        and the status of killed runs, up to date."""
        from mlflow import MlflowClient

        self.client = MlflowClient(self.uri)
        if not (found := self.client.get_experiment_by_name(name)):
            self.client.create_experiment(name, artifacts)
            found = self.client.get_experiment_by_name(name)
        self.experiment = found.experiment_id
        if found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {self.experiment}"
            raise OSError(f"the experiment {name} is deleted, and `{restore}` brings it back")
        _expect_usable(found.artifact_location)
        for key, text in experiment_tags(self.experiment).items():
            if found.tags.get(key) != text:
                self.client.set_experiment_tag(self.experiment, key, text)
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get("process", "").rpartition(":")
            if host == platform.node() and not psutil.pid_exists(int(process)):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _reach(self) -> None:
        """Raise UserError or OSError, soon, unless a server of MLflow 3 answers. It is asked as by
        MLflow's client: with the user's certificates, passwords and proxies."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        if not SERVER.fullmatch(self.uri):  # in whose words may be a part of a password
            raise UserError(
                "MLFLOW_TRACKING_URI is no valid address; it should be like http://HOST:5000 or "
                "sqlite:///FILE, with what a password has of / : @ # ? as %2F %3A %40 %23 %3F"
            )
        asked = get_default_host_creds(self.uri), "/version", "GET"
        answer = http_request(*asked, max_retries=0, timeout=PATIENCE, raise_on_status=False)
        # A proxy before the server may keep this page to itself; the next request tells then.
        if re.match(r"[0-2]\.\d", answer.text):
            raise OSError(f"the server has MLflow {answer.text}; 3 or later is needed")

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
            self.artifacts = database.parent / "mlartifacts"
            # MLflow would try a locked or damaged file for minutes.
            with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                _move_artifacts(connection, experiment, self.artifacts)
            self._open(experiment, self.artifacts.as_uri())


def _reason(words: str) -> str:
    """Shorten the words of an error: no SQL, no page of a server, and of a chain of the HTTP
    library's errors the last, and whether it is the proxy's."""
    words, _, chain = words.partition(" [SQL: ")[0].partition("(Caused by ")
    if chain:
        proxy = "the proxy: " if chain.startswith("ProxyError") else ""
        last = re.split(r": (?![A-Z_]+\])|\('|, '", chain)[-1]
        words = proxy + re.sub(r" \(_ssl\..*", "", last).rstrip("\")'")
    if "certificate" in words:
        words += "; MLFLOW_TRACKING_SERVER_CERT_PATH names a file with the one to trust"
    return textwrap.shorten(words, 300)


def _sqlite_uri(path: Path) -> str:
    """A database's address, in which SQLAlchemy takes a ? for a query and a % for a code."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def _expect_usable(place: str) -> None:
    """Raise OSError where runs cannot keep files at `place`, as s3://NAME, from here."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if re.match("(?!file:|mlflow-artifacts:)[a-z0-9+-]+:", place):
        try:
            get_artifact_repository(place).list_artifacts()
        except Exception as error:  # of a package for such places, or of Python where it is missing
            raise OSError(f"its files go to {shown(place)}: {one_line(error)}") from None


def _move_artifacts(connection: sqlite3.Connection, experiment: str, folder: Path) -> None:
    """Let an experiment's files be in `folder`, beside the database.

    MLflow keeps their old folder's name when a checkout is renamed or copied, and would write into
    the original. A server with this database (`make ui`) has them there too, and names no folder.
    """
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    for (before,) in connection.execute(query, [experiment]).fetchall():
        old = re.match("file:.*/mlartifacts(?=/|$)|mlflow-artifacts:", before)
        if old and old[0] != folder.as_uri():
            for table in ("experiments", "runs", "logged_models"):
                column = "artifact_uri" if table == "runs" else "artifact_location"
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                connection.execute(change, [old[0], folder.as_uri()])
