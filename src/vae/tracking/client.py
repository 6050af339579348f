"""The MLflow store that runs go to: `MLFLOW_TRACKING_URI` if set, else mlflow.db in the repository's root."""

import logging
import os
import platform
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vae.cli import UserError
from vae.files import shown, written_whole
from vae.params import Tracking
from vae.tracking.experiment import find_experiment

import psutil
import requests
from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Seconds until a server that says nothing, or a database that is locked, is given up.
PATIENCE = 4
# MLflow's own would hold up a training for minutes when the server is lost.
HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# They tell, with tracebacks, how tables are made and what is tried again; the errors come to `trouble`.
LOUD = ("mlflow.store.db.utils", "mlflow.system_metrics", "urllib3.connectionpool")


@contextmanager
def trouble(uri: str) -> Iterator[None]:
    """Whatever goes wrong with the store at `uri` is told in one line, without its password: UserError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        reason = " ".join(str(error).replace(uri, shown(uri)).split())
        if "Caused by" in reason:  # the last of a chain of the HTTP library's errors
            reason = reason.rpartition(": ")[2].rstrip("\")'")
        raise UserError(
            f"cannot use the MLflow store {shown(uri)} ({reason}). Mend that, name another in "
            "MLFLOW_TRACKING_URI, or set tracking.enabled to false in params.yaml; "
            "`make track` logs later what is missing"
        ) from None


def connect(settings: Tracking) -> tuple["MlflowClient", str]:
    """A client and the experiment's id, both made where they are missing. Raises UserError."""
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **HTTP}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"
    try:
        _ = urlsplit(uri).port
    except ValueError:  # whose words may be a part of a password
        raise UserError(
            "MLFLOW_TRACKING_URI is no valid address; it should be like http://HOST:5000 or sqlite:///FILE, "
            "with what a password has of / : @ as %2F %3A %40"
        ) from None
    with trouble(uri):
        if not uri.startswith("sqlite:///"):
            _reach(uri)
            client = MlflowClient(uri)
            return client, find_experiment(client, settings.experiment, None)
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        # Processes that open a new database at once would each create its tables, and crash.
        with FileLock(f"{database}.lock", timeout=60):
            # MLflow would try a locked or damaged file for minutes.
            with closing(
                sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)
            ) as connection:
                connection.execute("BEGIN IMMEDIATE")
                if not database.stat().st_size:
                    _make(database)
            client = MlflowClient(uri)
            # MLflow would keep the artifacts below the current folder, which may be a temporary one.
            artifacts = (database.parent / "mlartifacts").as_uri()
            return client, find_experiment(client, settings.experiment, artifacts)


def _make(database: Path) -> None:
    """Make the tables in a file that gets its name when it is whole: half of them MLflow could not mend."""
    from mlflow import MlflowClient

    with written_whole(database) as temporary:
        for left in temporary.parent.glob(f"{temporary.name}*"):
            left.unlink()
        MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)


def close_killed(client: "MlflowClient", experiment: str) -> None:
    """Mark as killed the runs that a process of this machine began and did not live to end."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get("process", "").rpartition(":")
        if host == platform.node() and not psutil.pid_exists(int(process)):
            client.set_terminated(run.info.run_id, "KILLED")


def _reach(uri: str) -> None:
    """Raise OSError where nothing answers, soon."""
    place = urlsplit(uri)
    if place.scheme in ("http", "https"):
        requests.get(f"{uri.rstrip('/')}/health", timeout=PATIENCE)
    elif place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), PATIENCE).close()
