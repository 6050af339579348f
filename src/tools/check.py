"""Judge a run's published numbers in seconds; fail when one has fallen below its committed
verdict."""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import json
from pathlib import Path

from vae.cli import UserError, arguments
from vae.report.text import verdict_table
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import load_published
from vae.reproduction.verdicts import judge_run, worse_than
from vae.tracking.origin import git

COMMITTED = "metrics/reproduction.json"


def main() -> None:
    arguments(__doc__)
    study = load_intervals(Path("studies/seeds.csv"))
    values = judge_run(
        Path("metrics"), Path("plots"), load_published(Path("data/published")), study
    )
    print(verdict_table(values))
    if lines := worse_than(values, committed_verdicts()):
        raise UserError(
            "\n  ".join([f"{len(lines)} verdicts have fallen below {COMMITTED} of HEAD:", *lines])
        )
    print(f"no verdict has fallen below {COMMITTED} of HEAD")


def committed_verdicts() -> list[dict]:
    """The published values of the committed results, with their verdicts. Raises UserError."""
    try:
        return json.loads(git("show", f"HEAD:{COMMITTED}"))["published"]
    except (ValueError, KeyError):
        raise UserError(
            f"git has no {COMMITTED} with verdicts in HEAD to compare with; run in a clone of the "
            "repository"
        ) from None


if __name__ == "__main__":
    cli.run(main)
