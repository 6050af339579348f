"""Where a run comes from: git, DVC, and what its parameters differ in from the committed ones."""

import os
import subprocess
from collections.abc import Mapping

from pydantic import ValidationError
from ruamel.yaml import YAML

from vae.params import Params, flat, training_params

# What decides a result; not the outputs, which DVC removes before a stage runs.
SOURCES = ("src", "params.yaml", "dvc.yaml", "requirements.lock", "data/published")


def git(*arguments: str) -> str:
    """The output of a git command; empty where there is no git or no repository."""
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def origin() -> dict[str, str]:
    """Tags of where a run comes from: the git commit, and DVC's stage and experiment."""
    tags = {
        "dvc.stage": os.environ.get("DVC_STAGE"),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME"),
    }
    if commit := git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(git("status", "--porcelain", "--", *SOURCES))).lower()
    return {key: value for key, value in tags.items() if value}


def differences(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Those of a training's flat parameters that are not as committed."""
    try:
        committed = Params.model_validate(YAML(typ="safe").load(git("show", "HEAD:params.yaml")))
    except ValidationError:  # of another version, or there is no git
        return {}
    before = flat(training_params(committed, name))
    return {key: value for key, value in values.items() if before[key] != value}
