"""YAML files as frozen typed objects."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML

from vae.cli import UserError, one_line

Kind = TypeVar("Kind", bound="Group")


class Group(BaseModel):
    """A group of parameters; unknown keys, wrong types and impossible values are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        """Raise ValueError for an unknown key; unlike pydantic, name the allowed ones."""
        allowed = [field.alias or name for name, field in cls.model_fields.items()]
        for key in values if isinstance(values, dict) else ():
            if key not in allowed:
                close = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise ValueError(f"{key} is an unknown key; {hint}allowed: {', '.join(allowed)}")
        return values


def read_yaml(path: Path, kind: type[Kind], overrides: Mapping[str, Any] | None = None) -> Kind:
    """Read a YAML file as a `kind` of group, with `overrides` as in `check_params`."""
    try:
        # DVC's reader: in YAML 1.2, 1e-3 is a number and a repeated key is an error.
        values = YAML(typ="safe").load(path)
    except OSError as error:
        where = f"{path} in {Path.cwd()}"
        raise UserError(f"cannot read {where}: {error}; run from the repository's root") from None
    except Exception as error:  # not only YAMLError: `!!bool 3` is a KeyError
        reason = one_line(error) or type(error).__name__
        raise UserError(f"{path} is not valid YAML: {reason}") from None
    for name, value in (overrides or {}).items():
        *groups, key = name.split(".")
        group = values
        for part in groups:
            group = group.get(part) if isinstance(group, dict) else None
        if not isinstance(group, dict):
            raise UserError(f"{path} has no group {'.'.join(groups)}, which {name} names")
        group[key] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_describe, error.errors()))}") from None


def _describe(problem: Any) -> str:
    """Describe one mistake: the key, its value and what is allowed."""
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ").replace("tuple", "list")
    message = re.sub("^(Input|String|List) should", "it should", message)
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # an unknown key
        return one_line(f"{place}.{message}".removeprefix("."))
    value = one_line(repr(problem["input"]))
    value = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{place or 'the file'} is {value}; {message}"
