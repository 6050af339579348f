"""Bring MLflow up to date with the files: `make track`, and the stage `track`."""

import src_path  # noqa: F401
from vae import cli
from vae.cli import arguments
from vae.tracking.sync import sync


def main() -> None:
    sync(*arguments(__doc__, "models", "metrics", "plots", "report"))


if __name__ == "__main__":
    cli.run(main)
