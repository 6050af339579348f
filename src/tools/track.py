"""Bring MLflow up to date with the files, without running a stage: `make track`."""

import src_path  # noqa: F401
from vae import cli

cli.begin()


from vae.cli import arguments
from vae.tracking.sync import mirror


def main() -> None:
    mirror(*arguments(__doc__, "models", "metrics", "plots", "report"))


if __name__ == "__main__":
    cli.run(main)
