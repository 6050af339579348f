"""Tracking with a real MLflow server on PostgreSQL, behind a proxy that asks for a password."""

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from conftest import call
from mlflow_server import Server, free_port, runs, steps
from vae.rebuild.build import scratch_environment

pytest.importorskip("psycopg2", reason="psycopg2 speaks to PostgreSQL: make test-all")
FOUND = [shutil.which("pg_ctl"), *Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
PG_CTL = next(filter(None, FOUND), None)
pytestmark = pytest.mark.skipif(not PG_CTL, reason="needs PostgreSQL's pg_ctl, initdb and postgres")

USER, PASSWORD, DATABASE_PASSWORD = "vae-user", "hush-hush-1Z", "quiet-quiet-2Y"
WRONG = "wrong-wrong-3X"


@pytest.fixture(scope="module")
def postgres():
    """The port of a PostgreSQL on loopback that asks for a password; its superuser is `mlflow`."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # other users cannot read pytest's folders
    form = {"cwd": folder}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        shutil.chown(folder, "nobody", "nogroup")
        form |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
    (folder / "password").write_text(DATABASE_PASSWORD)
    form |= {"check": True, "stdout": subprocess.DEVNULL}
    port = free_port()
    control = [PG_CTL, "--wait", "-D", folder / "data", "-l", folder / "log", "-o"]
    made = f"-U mlflow --auth=scram-sha-256 --pwfile={folder}/password"
    subprocess.run([*control, made, "initdb"], **form)
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    subprocess.run([*control, options, "start"], **form)
    yield port
    subprocess.run([*control, "", "-m", "immediate", "stop"], **form)
    shutil.rmtree(folder)


class PasswordProxy(BaseHTTPRequestHandler):
    """Forward requests that have the user and password, as nginx does with a password file."""

    upstream: str

    def handle_request(self) -> None:
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, content = 401, {"WWW-Authenticate": "Basic"}, b"who are you?"
        if self.headers["Authorization"] == f"Basic {expected}":
            del self.headers["Authorization"]
            place, known = self.upstream + self.path, dict(self.headers)
            answer = requests.request(self.command, place, headers=known, data=body)
            headers = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
            status, content = answer.status_code, answer.content
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """The folder, with files and log, of an MLflow server started as docs/sharing.md says."""
    folder = tmp_path_factory.mktemp("server")
    database = f"postgresql+psycopg2://mlflow@127.0.0.1:{postgres}/postgres"
    places = {"MLFLOW_BACKEND_STORE_URI": database, "PGPASSWORD": DATABASE_PASSWORD}
    server = Server(folder, "server", "--artifacts-destination", f"{folder}/artifacts", **places)
    PasswordProxy.upstream = server.uri
    server.start()
    yield folder
    server.kill()


@pytest.fixture(scope="module")
def address(server):
    """The address of the proxy."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), PasswordProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}"
    proxy.shutdown()


def variables(address: str, password: str = PASSWORD) -> dict[str, str]:
    """The variables of a user who tracks on the server."""
    login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}
    return {"MLFLOW_TRACKING_URI": address, **login}


@pytest.fixture(scope="module")
def demo(finished_demo, tmp_path_factory):
    """A finished demo without its own tracking, for the whole module."""
    folder, ignored = tmp_path_factory.mktemp("copy") / "demo", shutil.ignore_patterns("ml*")
    return shutil.copytree(finished_demo, folder, ignore=ignored)


@pytest.fixture(scope="module")
def output(demo, address):
    """The output of DVC as it trains a model of the demo and tracks the rest on the server."""
    command = "dvc repro --force --single-item --verbose train-20d track 2>&1"
    return call(demo, "sh", "-c", command, **variables(address))


@pytest.fixture
def client(address, monkeypatch):
    for name, value in variables(address).items():
        monkeypatch.setenv(name, value)
    return MlflowClient(address)


def test_the_server_alone_has_the_run_and_its_files(output, client, demo, server, tmp_path):
    # `track` has logged the other model from its files.
    (run,) = (run for run in runs() if "logged.from" not in run.data.tags)
    assert run.info.status == "FINISHED"
    assert len(steps(run, "test_kl")) == 10
    assert "scores/noise_kl" in run.data.metrics
    assert not list(demo.glob("ml*"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    for name in ("plots/reconstruction.gif", "plots/losses.png", "report.html"):
        copy = client.download_artifacts(run.info.run_id, name, tmp_path)
        (kept,) = (server / "artifacts").rglob(f"{run.info.run_id}/artifacts/{name}")
        assert kept.read_bytes() == Path(copy).read_bytes() == (demo / name).read_bytes()
    (model,) = run.outputs.model_outputs
    (weights,) = (server / "artifacts").rglob(f"{model.model_id}/artifacts/**/20d.safetensors")
    assert weights.read_bytes() == (demo / "models/20d.safetensors").read_bytes()


def test_passwords_are_in_no_file_log_or_run(output, client, demo, server):
    texts = [output, *(str(run.to_dictionary()) for run in runs())]
    files = [path for folder in (demo, server) for path in folder.rglob("*") if path.is_file()]
    assert server / "log" in files
    for password in (PASSWORD, DATABASE_PASSWORD):
        assert not [text for text in texts if password in text]
        assert not [path for path in files if password.encode() in path.read_bytes()]


@pytest.mark.parametrize("login", ["", f"{USER}:{WRONG}@"])
def test_a_wrong_password_ends_in_one_line_without_it(output, demo, address, client, login):
    before = len(runs())
    environment = scratch_environment() | variables(address.replace("//", f"//{login}"), WRONG)
    command = [sys.executable, "src/train.py", "20d", "data/binarized"]
    result = subprocess.run(command, cwd=demo, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot use the MLflow store")
    assert result.stderr.count("\n") == 1
    assert "401" in result.stderr
    assert WRONG not in result.stdout + result.stderr
    assert len(runs()) == before
