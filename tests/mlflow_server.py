"""An MLflow server to start and kill, and what tests of tracking write and read."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import requests
from mlflow import MlflowClient

from vae.files import write_csv
from vae.frames import FrameRecorder
from vae.rebuild.build import scratch_environment
from vae.training import Epoch, Losses


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`mlflow` with these arguments and variables, on a free port, with its log in `folder`."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.command = [sys.executable, "-m", "mlflow", *arguments]
        self.command += f"--workers 1 --host 127.0.0.1 --port {port}".split()
        self.environment = scratch_environment() | variables

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            form = {"cwd": self.folder, "env": self.environment, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(self.command, **form)
        for _ in range(600):
            with contextlib.suppress(OSError):
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.1)
        raise TimeoutError(self.command)

    def kill(self) -> None:
        for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def write_training(name: str, epochs: int) -> list[Epoch]:
    """Write what a training leaves: weights, black frames of five pictures, losses."""
    rows = [Epoch(n, Losses(80.0 - n, 20.0), Losses(81.0 - n, 21.0)) for n in range(1, epochs + 1)]
    Path("models").mkdir(exist_ok=True)
    Path(f"models/{name}.safetensors").write_bytes(b"weights")
    Path(f"models/{name}.json").write_text("{}")
    recorder = FrameRecorder(np.zeros((5, 784), np.uint8), 16)
    recorder.save(Path(f"models/{name}-epochs.arrow"), [np.zeros((5, 784), np.uint8)] * epochs)
    write_csv(Path(f"plots/{name}-losses.csv"), pd.DataFrame([epoch.row() for epoch in rows]))
    return rows


def client() -> MlflowClient:
    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/mlflow.db"))


def runs(query: str = ""):
    experiment = client().get_experiment_by_name("vae-mnist")
    return client().search_runs([experiment.experiment_id], query)


def steps(run, key: str = "train_loss") -> list[int]:
    return [point.step for point in client().get_metric_history(run.info.run_id, key)]


def artifacts(run, folder: str) -> list[str]:
    return [file.path for file in client().list_artifacts(run.info.run_id, folder)]
