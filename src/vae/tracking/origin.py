"""Where a run comes from: git, DVC, and parameters that differ from the committed ones."""

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
    """Tags with the git commit, and with DVC's stage and experiment."""
    tags = {
        "dvc.stage": os.environ.get("DVC_STAGE"),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME"),
    }
    if commit := git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(git("status", "--porcelain", "--", *SOURCES))).lower()
    return {key: value for key, value in tags.items() if value}


def differences(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Those of a training's flat parameters that differ from the last commit's; none where the
    commit has no params.yaml that this version can read."""
    try:
        params = Params.model_validate(YAML(typ="safe").load(committed("params.yaml")))
    except (ValidationError, YAMLError):
        return {}
    before = flat(training_params(params, name))
    return {key: value for key, value in values.items() if before[key] != value}
