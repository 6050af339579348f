"""Bring MLflow up to date with the results: `make track`, and the stage `track`."""

from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import arguments
from vae.files import write_text
from vae.tracking.sync import sync


def main() -> None:
    paths = arguments(__doc__, "models", "metrics", "plots", "report")
    print("tracking: logging the results to MLflow", flush=True)  # which takes seconds
    sync(*paths)
    write_text(Path(".tracked"), "The stage track has run.\n")


if __name__ == "__main__":
    cli.run(main)
