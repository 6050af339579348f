"""A training tracked on a real MLflow server with PostgreSQL behind it and a password before it."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import requests
from mlflow import MlflowClient

from conftest import copy_demo

pytest.importorskip("psycopg2", reason="psycopg2 speaks to PostgreSQL: make test-all")
INITDB = shutil.which("initdb") or next(
    map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None
)
pytestmark = pytest.mark.skipif(not INITDB, reason="needs PostgreSQL's initdb and postgres")

USER, PASSWORD, DATABASE_PASSWORD = "vae-user", "hush-hush-1Z", "quiet-quiet-2Y"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(ready, process: subprocess.Popen) -> None:
    for _ in range(600):
        if ready():
            return
        assert process.poll() is None, "a server has ended"
        time.sleep(0.1)
    raise TimeoutError(process.args)


@pytest.fixture(scope="module")
def postgres():
    """The port of a PostgreSQL on the loopback that wants a password; its superuser is `mlflow`."""
    folder = Path(
        tempfile.mkdtemp(prefix="postgres-")
    )  # pytest's folders are closed to other users
    owner = {}
    if os.getuid() == 0:  # as whom PostgreSQL does not start
        shutil.chown(folder, "nobody", "nogroup")
        owner = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    (folder / "password").write_text(DATABASE_PASSWORD)
    port, binaries = free_port(), Path(INITDB).resolve().parent
    initdb = [INITDB, "-D", folder / "data", "-U", "mlflow", "--auth=scram-sha-256"]
    subprocess.run(
        [*initdb, f"--pwfile={folder}/password"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        **owner,
    )
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "fsync": "off",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", *options],
            cwd=folder,
            stderr=log,
            **owner,
        )
    ready = [binaries / "pg_isready", "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    wait_for(lambda: not subprocess.run(ready).returncode, server)
    yield port
    server.send_signal(signal.SIGQUIT)
    server.wait()
    shutil.rmtree(folder)


class PasswordProxy(BaseHTTPRequestHandler):
    """Do what nginx with a password file does: pass on what names user and password."""

    upstream: str

    def handle_request(self) -> None:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Basic {wanted}":
            status, headers, content = 401, {"WWW-Authenticate": "Basic"}, b"who are you?"
        else:
            passed = {
                name: value for name, value in self.headers.items() if name != "Authorization"
            }
            answer = requests.request(
                self.command, self.upstream + self.path, headers=passed, data=body
            )
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
    """The folder, with artifacts and log, of an MLflow server started as docs/sharing.md says."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://mlflow@127.0.0.1:{postgres}/postgres",
        "PGPASSWORD": DATABASE_PASSWORD,
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1", "--artifacts-destination", folder / "artifacts"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    PasswordProxy.upstream = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            return requests.get(f"{PasswordProxy.upstream}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_for(healthy, process)
    assert not [arg for arg in psutil.Process(process.pid).cmdline() if DATABASE_PASSWORD in arg]
    yield folder
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


@pytest.fixture(scope="module")
def address(server):
    """Where the server is reached: a proxy that asks for the password."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), PasswordProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}"
    proxy.shutdown()


def tracked(address: str, password: str = PASSWORD) -> dict[str, str]:
    """The environment of a user who tracks on the server."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


@pytest.fixture(scope="module")
def demo(finished_demo, tmp_path_factory):
    """A finished demo for the whole module."""
    return copy_demo(finished_demo, tmp_path_factory.mktemp("copy") / "demo")


@pytest.fixture(scope="module")
def output(demo, address):
    """What DVC printed when it trained a model of the demo and tracked the rest, on the server."""
    for path in demo.glob("ml*"):  # what the demo's own tracking left
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    printed = ""
    for stage in ("train-20d", "track"):
        command = [
            sys.executable,
            "-m",
            "dvc",
            "repro",
            "--force",
            "--single-item",
            "--verbose",
            stage,
        ]
        result = subprocess.run(
            command, cwd=demo, env=tracked(address), capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        printed += result.stdout + result.stderr
    return printed


@pytest.fixture
def client(address, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return MlflowClient(address)


def runs(client: MlflowClient):
    return client.search_runs([client.get_experiment_by_name("vae-mnist").experiment_id])


def trained(client: MlflowClient):
    """The run that the training began; `track` has logged the other model from its files."""
    (run,) = (run for run in runs(client) if "logged.from" not in run.data.tags)
    return run


def test_the_server_has_the_run_with_its_parameters_losses_and_scores(output, client):
    run = trained(client)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "32"
    for loss in ("train_loss", "test_loss", "train_kl", "test_reconstruction"):
        points = client.get_metric_history(run.info.run_id, loss)
        assert [point.step for point in points] == list(range(1, 11))
    assert "scores/noise_kl" in run.data.metrics


def test_figures_go_through_the_server_to_its_folder_and_back_unchanged(
    output, client, demo, server, tmp_path
):
    run = trained(client)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    for name in ("plots/reconstruction.gif", "plots/losses.png", "report.html"):
        copy = client.download_artifacts(run.info.run_id, name, tmp_path)
        assert Path(copy).read_bytes() == (demo / name).read_bytes()
        (kept,) = (server / "artifacts").rglob(f"{run.info.run_id}/artifacts/{name}")
        assert kept.read_bytes() == (demo / name).read_bytes()
    (model,) = run.outputs.model_outputs
    (weights,) = (server / "artifacts").rglob(f"{model.model_id}/artifacts/20d.safetensors")
    assert weights.read_bytes() == (demo / "models/20d.safetensors").read_bytes()


def test_nothing_is_tracked_in_the_working_folder(output, demo):
    assert not list(demo.glob("ml*"))


def test_passwords_are_in_no_file_log_or_run(output, client, demo, server):
    texts = [output, *(str(run.to_dictionary()) for run in runs(client))]
    files = [path for folder in (demo, server) for path in folder.rglob("*") if path.is_file()]
    assert server / "log" in files
    for password in (PASSWORD, DATABASE_PASSWORD):
        assert not [text for text in texts if password in text]
        assert not [path for path in files if password.encode() in path.read_bytes()]


@pytest.mark.parametrize("place", ["environment", "address", "address/"])
def test_a_wrong_password_ends_in_one_line_that_does_not_show_it(
    output, demo, address, client, place
):
    before = len(runs(client))
    environment = tracked(address, "wrong-wrong-3X")
    if place != "environment":
        del environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"]
        uri = address.replace("http://", f"http://{USER}:wrong-wrong-3X@")
        environment["MLFLOW_TRACKING_URI"] = uri + place.removeprefix("address")
    command = [sys.executable, "src/train.py", "20d", "data/binarized"]
    result = subprocess.run(command, cwd=demo, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot use the MLflow store")
    assert result.stderr.count("\n") == 1
    assert "401" in result.stderr
    assert "wrong-wrong-3X" not in result.stdout + result.stderr
    assert len(runs(client)) == before
