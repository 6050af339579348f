"""An MLflow server to start and kill."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests

from vae.rebuild.build import scratch_environment


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
