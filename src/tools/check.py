"""Judge a run's published numbers in seconds; fail when a verdict is below the committed one."""

import json
from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import UserError, arguments
from vae.params import check_params
from vae.report.text import verdict_counts
from vae.reproduction.verdicts import judge_run, worse_than
from vae.tracking.origin import git

COMMITTED = "metrics/reproduction.json"
FOLDERS = [Path(name) for name in ("data/published", "studies", "plots", "metrics")]


def main() -> None:
    arguments(__doc__)
    judged = judge_run(check_params(Path("params.yaml")), *FOLDERS)
    if judged.values.empty:
        print("data/published has no numbers of this data: there is nothing to judge")
        return
    print(verdict_counts(judged.values).to_string())
    for name in judged.others:
        print(f"params.yaml has other parameters of the {name} model than the study: not judged")
    try:
        committed = json.loads(git("show", f"HEAD:{COMMITTED}"))["published"]
    except ValueError:
        raise UserError(f"git has no {COMMITTED} in HEAD to compare with; run in a clone") from None
    if lines := worse_than(judged.values, committed):
        lines.insert(0, f"{len(lines)} verdicts have fallen below {COMMITTED} of HEAD:")
        raise UserError("\n  ".join(lines))
    print(f"no verdict has fallen below {COMMITTED} of HEAD")


if __name__ == "__main__":
    cli.run(main)
