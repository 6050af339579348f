"""Tracking with a real MLflow server, which is killed and started again."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_server import Server, artifacts, runs, steps, write_training
from vae.cli import UserError
from vae.files import md5
from vae.params import check_params
from vae.rebuild.compare import hashes
from vae.tracking.live import live_run
from vae.tracking.store import Store


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    options = f"--backend-store-uri sqlite:///{folder}/server.db"
    options += f" --artifacts-destination {folder}/artifacts"
    server = Server(folder, "server", *options.split())
    server.start()
    yield server
    server.kill()


def test_a_server_lost_while_training_misses_nothing_after_track(demo, server, monkeypatch):
    before = hashes(demo / "dvc.lock")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    command = [sys.executable, "src/train.py", "2d", "data/binarized"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    training = subprocess.Popen(command, cwd=demo, text=True, **streams)
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
    (run,) = runs("tags.model = '2d'")
    assert run.info.status == "RUNNING"
    assert 3 <= len(steps(run)) < 10

    track = "src/tools/track.py models metrics plots report.html"
    subprocess.run([sys.executable, *track.split()], cwd=demo, check=True)
    (run,) = runs("tags.model = '2d'")
    assert run.info.status == "FINISHED"
    for key in ("train_loss", "test_loss", "test_kl"):
        assert steps(run, key) == list(range(1, 11))
    assert "plots/manifold.gif" in artifacts(run, "plots")
    # Two kinds, in two sizes, of the trained model and after each epoch.
    assert len(artifacts(run, "images")) == 2 * 2 * 11


def test_a_server_back_before_the_end_misses_nothing(bare, server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    epochs = write_training("20d", 6)
    with live_run("20d", {"seed": "1"}, [], "0123456789ab") as log_epoch:
        for epoch in epochs[:2]:
            log_epoch(epoch)
        server.kill()
        for epoch in epochs[2:5]:
            log_epoch(epoch)
        server.start()
        log_epoch(epochs[5])
    (run,) = runs("tags.identity = '0123456789ab'")
    assert run.info.status == "FINISHED"
    for key in ("train_loss", "test_reconstruction"):
        assert steps(run, key) == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().out.count("cannot use the MLflow store") == 1


@pytest.mark.parametrize("kind", ["refused", "silent", "unknown"])
def test_an_unreachable_server_fails_the_start_within_seconds(bare, monkeypatch, kind):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        place = "nowhere.invalid" if kind == "unknown" else "127.0.0.1"
        uri = f"http://user:secret@{place}:{listener.getsockname()[1]}?token=secret"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"MLflow store http://{place}:\d+ \(") as caught:
            Store(check_params(Path("params.yaml")).tracking)
        assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 500
