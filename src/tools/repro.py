"""Run the pipeline with DVC; `make repro` calls this.

First it removes what a killed run left: DVC writes dvc.lock and .dvc/tmp/rwlock in place and
cannot read half of one, and a stage leaves temporary files.
"""

import argparse
import logging
import os
import re
import shutil
import sys
from itertools import chain
from pathlib import Path
from textwrap import shorten
import src_path  # noqa: F401

import psutil
from dvc import cli as dvc_cli
from dvc.ui import ui

from vae import cli
from vae.cli import UserError
from vae.files import dvc_files
from vae.git import check_merged, git
from vae.grid import combinations, dvc_options, read_grid
from vae.params import POST_NETWORK, Params
from vae.tracking.sync import sync

# Hints of DVC's that do not apply: studies are frozen on purpose, and there may be no remote.
HINTS = re.compile(r"is frozen|`dvc push`|Ran experiment\(s\): '")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other options go to DVC.")
    help_set = "run a DVC experiment with other values of params.yaml, KEY=VALUE KEY=VALUE"
    parser.add_argument("-S", dest="set", default="", help=help_set)
    known, options = parser.parse_known_args()
    os.chdir(Path(__file__).resolve().parents[2])
    check_merged()
    # Name what DVC cannot follow before it starts.
    dvc_files(*Path("data").iterdir(), *map(Path, ("metrics", "models", "plots", "src")))
    grid = read_grid(known.set)
    params, *others = combinations(grid)
    if others:
        raise UserError("SET takes one value for a key; make experiments GRID= tries several")
    check_special(params)
    Path(".dvc/tmp").mkdir(exist_ok=True)
    cli.hold_lock(Path(".dvc/tmp/make-repro.lock"), "make repro")
    restore_after_kill(Path())
    command = ["exp", "run", *dvc_options(grid)] if grid else ["repro"]
    if status := dvc(*command, *options):
        sys.exit(status)
    checkpoints = Path(".checkpoints")
    if any(checkpoints.glob("*")):
        # A training was killed, and its results then came from DVC's cache.
        shutil.rmtree(checkpoints)
        sync(Path("models"), Path("metrics"), Path("plots"), Path("report.html"))
    if not options and git("ls-files", "dvc.lock"):
        print(against_commit())
    if params.tracking.enabled:
        print("MLflow: `make ui` shows the runs")


def check_special(params: Params) -> None:
    """Raise UserError for a device or network that cannot be used, before DVC removes outputs."""
    networks = {params.train_20d.network, params.train_2d.network}
    if params.train.device != "cpu" or networks != {POST_NETWORK}:
        from vae.training import check_training  # imports PyTorch, which takes seconds

        check_training(params)


def dvc(*arguments: str) -> int:
    """Run DVC in this process, without its `HINTS`; return its status."""
    for name in ("dvc.repo.reproduce", "dvc.repo.scm_context"):
        logging.getLogger(name).setLevel(logging.ERROR)
    write = ui.write
    ui.write = lambda *words, **style: HINTS.search(str(words)) or write(*words, **style)
    sys.argv = ["dvc", *arguments]  # DVC shows it to a process that waits for this one
    return dvc_cli.main(sys.argv[1:])


def against_commit() -> str:
    """Say which tracked files of this folder differ from the commit."""
    changed = git("diff", "--name-only", "--relative", "HEAD")
    if not changed:
        return "git: these results are the committed ones"
    names = changed.replace("\n", ", ")
    return (
        f"git: changed: {shorten(names, 400, placeholder=' ...')}\n"
        "to keep them: git add --update . && git commit\n"
        "to go back:   git checkout HEAD . && make repro"
    )


def restore_after_kill(folder: Path) -> None:
    """Restore a half-written dvc.lock and remove temporary files, unless DVC runs a stage."""
    rwlock, lock = folder / ".dvc/tmp/rwlock", folder / "dvc.lock"
    if rwlock.exists():
        holders = re.findall(r'"pid": (\d+)', rwlock.read_text())
        if any(psutil.pid_exists(int(holder)) for holder in holders):
            return
        rwlock.unlink()
    text = lock.read_bytes() if lock.exists() else b"\n"
    # Cut within a line or after a key. DVC itself notices missing entries.
    if not text.endswith(b"\n") or text.endswith(b":\n"):
        lock.unlink()
        git("checkout", "HEAD", str(lock))  # newer results are in DVC's cache
        print("dvc.lock was half-written by a killed run; restored", flush=True)
    outputs = (folder / name for name in ("data", "models", "metrics", "plots", "studies"))
    for path in chain(folder.glob(".tmp-*"), *(output.rglob(".tmp-*") for output in outputs)):
        path.unlink()


if __name__ == "__main__":
    cli.run(main)
