"""Bring MLflow up to date with the files, without running a stage: `make track`."""

from pathlib import Path

from vae.errors import arguments, run_stage
from vae.mirror import mirror


def main() -> None:
    mirror(*map(Path, arguments("models", "metrics", "plots", "report")))


if __name__ == "__main__":
    run_stage(main)
