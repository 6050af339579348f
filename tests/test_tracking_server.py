"""Tracking with a real MLflow server, which is killed and started again."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from conftest import ROOT, save_frames
from mlflow_server import Server
from vae.cli import UserError
from vae.files import md5, write_csv
from vae.params import check_params
from vae.rebuild.compare import hashes
from vae.tracking.live import live_run
from vae.tracking.store import Store
from vae.training import Epoch, Losses


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    files = ["--artifacts-destination", f"{folder}/artifacts"]
    server = Server(
        folder, "server", "--backend-store-uri", f"sqlite:///{folder}/server.db", *files
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture
def workspace(tmp_path, monkeypatch, server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def steps(client: MlflowClient, run, key: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, key)]


def runs_of(client: MlflowClient, model: str):
    experiment = client.get_experiment_by_name("vae-mnist").experiment_id
    return client.search_runs([experiment], f"tags.model = '{model}'")


def test_a_server_lost_while_training_misses_nothing_after_track(demo, server, monkeypatch):
    before = hashes(demo / "dvc.lock")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    command = [sys.executable, "src/train.py", "2d", "data/binarized"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    training = subprocess.Popen(command, cwd=demo, **streams)
    output = []
    for line in training.stdout:
        output.append(line)
        if line.startswith("epoch 3,"):
            server.kill()
            lost = time.monotonic()
    assert training.wait() == 0, "".join(output)
    assert time.monotonic() - lost < 60
    (warning,) = [line for line in output if not line.startswith("epoch ")]
    assert "cannot use the MLflow store http://127.0.0.1" in warning
    assert "Connection refused" in warning
    assert all(md5(demo / path) == before[path] for path in before if "2d" in path)
    server.start()
    client = MlflowClient(server.uri)
    (run,) = runs_of(client, "2d")
    assert run.info.status == "RUNNING"
    assert 3 <= len(steps(client, run, "train_loss")) < 10

    track = "src/tools/track.py models metrics plots report.html"
    subprocess.run([sys.executable, *track.split()], cwd=demo, check=True)
    (run,) = runs_of(client, "2d")
    assert run.info.status == "FINISHED"
    for key in ("train_loss", "test_loss", "test_kl"):
        assert steps(client, run, key) == list(range(1, 11))
    assert "manifold.gif" in str(client.list_artifacts(run.info.run_id, "plots"))
    # Two kinds, in two sizes, of the trained model and after each epoch.
    assert len(client.list_artifacts(run.info.run_id, "images")) == 2 * 2 * 11


def test_a_server_back_before_the_end_misses_nothing(workspace, server, capsys):
    epochs = [Epoch(n, Losses(80.0 - n, 20.0), Losses(81.0 - n, 21.0)) for n in range(1, 7)]
    Path("models").mkdir()
    Path("models/20d.safetensors").write_bytes(b"weights")
    Path("models/20d.json").write_text("{}")
    save_frames(Path("models/20d-epochs.arrow"), 6)
    write_csv(Path("plots/20d-losses.csv"), pd.DataFrame([epoch.row() for epoch in epochs]))
    with live_run("20d", {"seed": "1"}, [], "0123456789ab") as log_epoch:
        for epoch in epochs[:2]:
            log_epoch(epoch)
        server.kill()
        for epoch in epochs[2:5]:
            log_epoch(epoch)
        server.start()
        log_epoch(epochs[5])
    client = MlflowClient(server.uri)
    (found,) = [run for run in runs_of(client, "20d") if run.data.tags["identity"][0] == "0"]
    assert found.info.status == "FINISHED"
    for key in ("train_loss", "test_reconstruction"):
        assert steps(client, found, key) == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().out.count("cannot use the MLflow store") == 1


@pytest.mark.parametrize("kind", ["refused", "silent", "unknown"])
def test_an_unreachable_server_fails_the_start_within_seconds(workspace, monkeypatch, kind):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        place = "nowhere.invalid" if kind == "unknown" else "127.0.0.1"
        uri = f"http://user:secret@{place}:{listener.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"MLflow store http://{place}:\d+ \(") as caught:
            Store(check_params(Path("params.yaml")).tracking)
        assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 500
