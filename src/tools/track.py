"""Bring MLflow up to date with the results: `make track`, and the stage `track`."""

from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import arguments
from vae.files import write_text
from vae.tracking.sync import sync


def main() -> None:
    sync(*arguments(__doc__, "models", "metrics", "plots", "report"))
    write_text(Path(".tracked"), "The stage track has run.\n")


if __name__ == "__main__":
    cli.run(main)
