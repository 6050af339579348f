"""What git knows of this folder, which is a repository or a folder in one."""

import re
import subprocess

from vae.cli import UserError


def git(*arguments: str) -> str:
    """The output of a git command; empty if it fails."""
    # Without quotes around file names.
    command = ["git", "-c", "core.quotePath=false", *arguments]
    form = {"encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, capture_output=True, check=True, **form).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def committed(path: str) -> str:
    """The text of a file in the last commit, by its path from here; empty if it has none."""
    return git("show", f"HEAD:./{path}")


def check_merged() -> None:
    """Raise UserError if files contain a merge's conflict markers, which DVC cannot read."""
    if names := git("grep", "--files-with-matches", "^<<<<<<< ").splitlines():
        side = "HEAD" if git("ls-files", "--unmerged") else "HEAD^"
        raise UserError(
            f"a merge left conflicts in {', '.join(names)}; for results take either side: git "
            f"checkout {side} dvc.lock metrics; edit other files; then run it again"
        )


def check_whole() -> None:
    """Raise UserError in a shallow or partial clone, where DVC would lose experiments."""
    objects = git("rev-list", "--objects", "--missing=print", "HEAD")
    partial = re.search(r"^\?", objects, re.MULTILINE)
    if git("rev-parse", "--is-shallow-repository") == "true" or partial:
        command = "git fetch --refetch --no-filter" if partial else "git fetch --unshallow"
        raise UserError(f"experiments need a clone with all of git's history: run {command}")
