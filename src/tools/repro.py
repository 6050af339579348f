"""Mend what a killed DVC left half-written, so that the next `dvc repro` goes on; `make repro` runs it first.

DVC writes dvc.lock and .dvc/tmp/rwlock in place, and stops at a torn one. A stage that was killed leaves a
temporary file, which stays where DVC restores the stage's outputs instead of running it again.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import json
import shutil
from itertools import chain
from pathlib import Path

from vae.cli import arguments

import psutil
from zc.lockfile import LockError, LockFile

OUTPUTS = ("data", "models", "metrics", "plots", "studies")


def main() -> None:
    arguments(__doc__)
    folder = Path(".dvc/tmp")
    if not folder.is_dir():
        return
    try:
        # DVC's own: whoever has it may be writing. DVC lends it while a stage runs, which rwlock tells.
        lock = LockFile(folder / "lock")
    except LockError:
        return
    try:
        if not someone_works(folder / "rwlock"):
            mend_lock(Path("dvc.lock"), folder / "dvc.lock")
            for path in [
                *Path().glob(".tmp-*"),
                *(p for name in OUTPUTS for p in Path(name).rglob(".tmp-*")),
            ]:
                if path.is_file():
                    path.unlink()
    finally:
        lock.close()


def someone_works(rwlock: Path) -> bool:
    """Whether a living process is among those that DVC's rwlock names; a torn one is removed."""
    try:
        locked = json.loads(rwlock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        rwlock.unlink()
        return False
    holders = [*locked.get("write", {}).values(), *chain(*locked.get("read", {}).values())]
    return any(psutil.pid_exists(holder["pid"]) for holder in holders)


def mend_lock(path: Path, copy: Path) -> None:
    """Put a torn dvc.lock back as it was at the last call, or remove it; keep a copy of a whole one."""
    if not path.exists():
        return
    if not torn(path.read_text(encoding="utf-8", errors="replace")):
        shutil.copyfile(path, copy)
        return
    copy.replace(path) if copy.exists() else path.unlink()
    print(f"{path} was left half-written by a DVC that was killed; DVC makes it anew")


def torn(text: str) -> bool:
    """Whether the text of a dvc.lock ends too soon: in a line, or after a key.

    If it ends between two entries, DVC finds out itself, for the last stage lacks some of its files.
    """
    return not text.endswith("\n") or text.rstrip().endswith(":")


if __name__ == "__main__":
    cli.run(main)
