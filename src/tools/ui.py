"""Open MLflow's pages on 127.0.0.1, or say where the server of MLFLOW_TRACKING_URI has them:
`make ui`."""

import argparse
import os
import socket
import sys
import src_path  # noqa: F401

from vae import cli
from vae.cli import UserError
from vae.files import shown
from vae.params import read_params
from vae.tracking.pages import runs_page
from vae.tracking.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000, help="%(default)s")
    port = parser.parse_args().port
    (settings,) = read_params("tracking")
    store = Store(settings)
    if not store.artifacts:
        print(f"runs: {shown(store.uri)}/{runs_page(store.experiment)}")
        return
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot listen on port {port} ({error}); name another by PORT="
            ) from None
    print(f"runs: http://127.0.0.1:{port}/{runs_page(store.experiment)}", flush=True)
    command = f"-m mlflow ui --workers 1 --host 127.0.0.1 --port {port} --backend-store-uri".split()
    os.execv(
        sys.executable,
        [sys.executable, *command, store.uri, "--artifacts-destination", str(store.artifacts)],
    )


if __name__ == "__main__":
    cli.run(main)
