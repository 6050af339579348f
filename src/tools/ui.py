"""Open MLflow's pages on 127.0.0.1, or print their address on the server of MLFLOW_TRACKING_URI."""

import argparse
import os
import socket
import sys
from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import UserError
from vae.mirror import shown
from vae.params import check_params
from vae.tracking.pages import runs_page
from vae.tracking.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000, help="%(default)s")
    port = parser.parse_args().port
    store = Store(check_params(Path("params.yaml")).tracking)
    page = runs_page(store.experiment)
    if not store.artifacts:
        print(f"runs: {shown(store.uri)}/{page}")
        return
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is in use; name another with PORT=")
    if not store.client.search_runs([store.experiment], max_results=1):
        print("no runs yet; `make track` logs the results that dvc pull or DVC's cache brought")
    print(f"runs: http://127.0.0.1:{port}/{page}", flush=True)
    command = f"-m mlflow ui --workers 1 --host 127.0.0.1 --port {port}".split()
    places = ["--backend-store-uri", store.uri]
    places += ["--artifacts-destination", store.artifacts.as_uri()]
    os.execv(sys.executable, [sys.executable, *command, *places])


if __name__ == "__main__":
    cli.run(main)
