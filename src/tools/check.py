"""Judge a run's published numbers in seconds; fail when a verdict is below the committed one."""

import json
from pathlib import Path

import src_path  # noqa: F401
from vae import cli
from vae.cli import UserError, arguments
from vae.params import MODELS, check_params
from vae.report.text import plain_table, verdict_table
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import load_losses, load_published
from vae.reproduction.verdicts import judge_run, other_parameters, worse_than
from vae.tracking.origin import git

COMMITTED = "metrics/reproduction.json"


def main() -> None:
    arguments(__doc__)
    params, studies = check_params(Path("params.yaml")), Path("studies")
    ours = {model: load_losses(Path(f"plots/{model}-losses.csv")) for model in MODELS}
    published = load_published(Path("data/published"), params.download.dataset, params.binarize)
    study = load_intervals(studies / "seeds.csv")
    others = other_parameters(params, studies / "seeds.json")
    values = judge_run(published, Path("metrics"), ours, study, others)
    if values.empty:
        print("data/published has no numbers of this data: there is nothing to judge")
        return
    print(verdict_table(values, plain_table))
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
