"""Judge a run's published numbers in seconds; fail when a verdict is below the committed one."""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import json
from pathlib import Path

from vae.cli import UserError, arguments
from vae.params import check_params
from vae.report.text import verdict_table
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import load_published
from vae.reproduction.verdicts import judge_run, other_parameters, worse_than
from vae.tracking.origin import git

COMMITTED = "metrics/reproduction.json"


def main() -> None:
    arguments(__doc__)
    study = load_intervals(Path("studies/seeds.csv"))
    published = load_published(Path("data/published"))
    others = other_parameters(check_params(Path("params.yaml")), Path("studies/seeds.json"))
    values = judge_run(Path("metrics"), Path("plots"), published, study, others)
    print(verdict_table(values))
    for name in others:
        print(f"params.yaml has other parameters of the {name} model than the study: not judged")
    try:
        committed = json.loads(git("show", f"HEAD:{COMMITTED}"))["published"]
    except ValueError:
        raise UserError(f"git has no {COMMITTED} in HEAD to compare with; run in a clone") from None
    if lines := worse_than(values, committed):
        lines.insert(0, f"{len(lines)} verdicts have fallen below {COMMITTED} of HEAD:")
        raise UserError("\n  ".join(lines))
    print(f"no verdict has fallen below {COMMITTED} of HEAD")


if __name__ == "__main__":
    cli.run(main)
