"""Mend what a killed DVC left half-written, so that the next `dvc repro` goes on; `make repro` runs it first.

DVC writes dvc.lock and .dvc/tmp/rwlock in place, and stops at a torn one.
"""

import json
import shutil
from pathlib import Path

from zc.lockfile import LockError, LockFile

from vae.errors import arguments, run_stage


def main() -> None:
    arguments()
    folder = Path(".dvc/tmp")
    if not folder.is_dir():
        return
    try:
        # DVC's own: whoever has it may be writing.
        lock = LockFile(folder / "lock")
    except LockError:
        return
    try:
        mend_lock(Path("dvc.lock"), folder / "dvc.lock")
        rwlock = folder / "rwlock"
        if rwlock.exists() and torn_json(rwlock.read_text(encoding="utf-8", errors="replace")):
            rwlock.unlink()  # it only names processes, and those that held it are dead
    finally:
        lock.close()


def mend_lock(path: Path, copy: Path) -> None:
    """Put a torn dvc.lock back as it was at the last call, or remove it; keep a copy of a whole one."""
    if not path.exists():
        return
    if not torn_yaml(path.read_text(encoding="utf-8", errors="replace")):
        shutil.copyfile(path, copy)
        return
    copy.replace(path) if copy.exists() else path.unlink()
    print(f"{path} was left half-written by a DVC that was killed; DVC makes it anew")


def torn_yaml(text: str) -> bool:
    """Whether the text of a dvc.lock ends too soon: in a line, or after a key.

    If it ends between two entries, DVC finds out itself, for the last stage lacks some of its files.
    """
    return not text.endswith("\n") or text.rstrip().endswith(":")


def torn_json(text: str) -> bool:
    """Whether the text of an rwlock is no JSON."""
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


if __name__ == "__main__":
    run_stage(main)
