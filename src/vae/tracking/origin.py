"""Where a run comes from: git, DVC, and what its parameters differ in from the committed ones."""

import os
from collections.abc import Mapping

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.git import committed, git
from vae.params import Params, flat, training_params

# What decides a result; not the outputs, which DVC removes before a stage runs.
SOURCES = ("src", "params.yaml", "dvc.yaml", "requirements.lock", "data/published")


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


def committed_params() -> Params | None:
    """The last commit's params.yaml; None where there is none, or one of another version."""
    try:
        return Params.model_validate(YAML(typ="safe").load(committed("params.yaml")))
    except (ValidationError, YAMLError):
        return None


def differences(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Those of a training's flat parameters that are not as committed."""
    if not (params := committed_params()):
        return {}
    before = flat(training_params(params, name))
    return {key: value for key, value in values.items() if before[key] != value}
