"""Git's answers about this folder, which may be the root of a repository or a folder in one."""

import re
import subprocess

from vae.cli import UserError


def git(*arguments: str) -> str:
    """The output of a git command; empty where it fails, or there is no git or no repository."""
    # File names without quotes.
    command = ["git", "-c", "core.quotePath=false", *arguments]
    form = {"encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, capture_output=True, check=True, **form).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def committed(path: str) -> str:
    """The text of a file in the last commit, by its path from here; empty without one."""
    return git("show", f"HEAD:./{path}")


def check_merged() -> None:
    """Raise UserError where a merge left both sides in a file; DVC could not read it."""
    if names := git("grep", "--files-with-matches", "^<<<<<<< ").splitlines():
        side = "HEAD" if git("ls-files", "--unmerged") else "HEAD^"
        raise UserError(
            f"a merge left conflicts in {', '.join(names)}. For results, take either side: "
            f"git checkout {side} dvc.lock metrics; correct other files by hand; then run it again"
        )


def check_whole() -> None:
    """Raise UserError in a clone without all of the history, where DVC would lose experiments."""
    objects = git("rev-list", "--objects", "--missing=print", "HEAD")
    partial = re.search(r"^\?", objects, re.MULTILINE)
    if git("rev-parse", "--is-shallow-repository") == "true" or partial:
        command = "git fetch --refetch --no-filter" if partial else "git fetch --unshallow"
        raise UserError(f"experiments need a clone with all of git's history: run {command}")
