"""Run the pipeline, one at a time in this folder, and also after a kill: `make repro`.

DVC writes dvc.lock and .dvc/tmp/rwlock in place and stops at a torn one. A killed stage leaves a
temporary file, which stays where DVC restores the stage's outputs instead of running it.
"""

import argparse
import fcntl
import json
import logging
import os
import shutil
import sys
from itertools import chain
from pathlib import Path
import src_path  # noqa: F401

import psutil
from dvc.cli import main as dvc

from vae import cli
from vae.files import dvc_files
from vae.grid import key_values, settings
from vae.tracking.origin import git
from vae.tracking.sync import sync


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other options go to DVC.")
    help_set = "another value for a key of params.yaml, by dvc exp run; several such are possible"
    parser.add_argument(
        "-S", dest="grid", action="append", type=key_values, default=[], help=help_set
    )
    known, options = parser.parse_known_args()
    os.chdir(Path(__file__).resolve().parents[2])
    # Refuse at once, and by its name, what DVC cannot follow.
    dvc_files(*Path("data").iterdir(), *map(Path, ("metrics", "models", "plots", "src")))
    command = ["exp", "run", *settings(dict(known.grid))] if known.grid else ["repro"]
    Path(".dvc/tmp").mkdir(exist_ok=True)
    wait_for_others(Path(".dvc/tmp/make-repro.lock"))
    restore_after_kill(Path())
    # Meant for others: the studies are frozen on purpose, and its hint names half of the files.
    logging.getLogger("dvc.repo.reproduce").addFilter(
        lambda record: "is frozen" not in str(record.msg)
    )
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    sys.argv = ["dvc", *command, *options]  # by which DVC names the process that it waits for
    if status := dvc(sys.argv[1:]):
        sys.exit(status)
    checkpoints = Path(".checkpoints")
    if any(checkpoints.glob("*")):
        # Of a training that was killed, and whose results then came from DVC's cache.
        shutil.rmtree(checkpoints)
        sync(Path("models"), Path("metrics"), Path("plots"), Path("report.html"))
    if git("rev-parse", "HEAD"):
        print(against_commit(git("status", "--porcelain", "--untracked-files=no").splitlines()))


def against_commit(changed: list[str]) -> str:
    """Say what of the results and their sources is not as committed, from lines of git's status."""
    if not changed:
        return "git: these results are the committed ones"
    names = ", ".join(line.split(maxsplit=1)[1] for line in changed[:12])
    more = f" and {len(changed) - 12} more" if len(changed) > 12 else ""
    return (
        f"git: not as committed: {names}{more}\nTo keep this state: git commit --all. To go back: "
        "git checkout . && make repro"
    )


def wait_for_others(path: Path) -> None:
    """Lock `path` as long as this process lives; say who has it already, and wait."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = f"process {path.read_text()} (make repro)"
        print(f"{who} is at work in this folder; waiting for its end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    path.write_text(str(os.getpid()))


def restore_after_kill(folder: Path) -> None:
    """Put back a torn dvc.lock and remove temporary files, unless a living DVC runs a stage."""
    rwlock, lock, copy = (
        folder / name for name in (".dvc/tmp/rwlock", "dvc.lock", ".dvc/tmp/dvc.lock")
    )
    try:
        locked = json.loads(rwlock.read_text(encoding="utf-8"))
        holders = [*locked.get("write", {}).values(), *chain(*locked.get("read", {}).values())]
        if any(psutil.pid_exists(holder["pid"]) for holder in holders):
            return
    except (FileNotFoundError, ValueError):
        rwlock.unlink(missing_ok=True)
    if lock.exists():
        # Torn in a line or after a key; between two entries DVC finds out, as files are missing.
        if lock.read_bytes().endswith(b"\n") and not lock.read_bytes().endswith(b":\n"):
            shutil.copyfile(lock, copy)
        else:
            copy.replace(lock) if copy.exists() else lock.unlink()
            print("dvc.lock was half-written by a DVC that was killed; restored", flush=True)
    outputs = (folder / name for name in ("data", "models", "metrics", "plots", "studies"))
    for path in chain(folder.glob(".tmp-*"), *(output.rglob(".tmp-*") for output in outputs)):
        path.unlink()


if __name__ == "__main__":
    cli.run(main)
