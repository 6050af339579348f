"""Judge the run in this folder; fail if a verdict is worse than the committed one."""

import json
from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import UserError, arguments
from vae.git import committed
from vae.params import check_params
from vae.report.text import verdict_lines
from vae.reproduction.verdicts import judge_run, worse_than

RESULT = "metrics/reproduction.json"


def main() -> None:
    arguments(__doc__)
    folders = {name: Path(name) for name in ("studies", "plots", "metrics")}
    params = check_params(Path("params.yaml"))
    verdicts = judge_run(params, published=Path("data/published"), **folders)
    print("\n".join(verdict_lines(verdicts)))
    if verdicts.values.empty:
        return
    try:
        before = json.loads(committed(RESULT))["published"]
    except ValueError:
        raise UserError(f"git has no {RESULT} in HEAD to compare with; run in a clone") from None
    if lines := worse_than(verdicts.values, before):
        lines.insert(0, f"{len(lines)} verdicts have fallen below {RESULT} of HEAD:")
        raise UserError("\n  ".join(lines))
    print(f"no verdict has fallen below {RESULT} of HEAD")


if __name__ == "__main__":
    cli.run(main)
