"""YAML files as frozen typed objects; a mistake in one stops before work starts."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML

from vae.cli import UserError, one_line

Kind = TypeVar("Kind", bound="Group")


class Group(BaseModel):
    """A group of parameters: unknown keys, wrong types and impossible values are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def read_yaml(path: Path, kind: type[Kind], overrides: Mapping[str, Any] | None = None) -> Kind:
    """Read a YAML file as a `kind` of group; otherwise as `check_params`."""
    try:
        if path.is_fifo():
            raise OSError("it is a pipe, and reading it would never end")
        # DVC's own reader: YAML 1.2, in which 1e-3 is a number and a repeated key is an error.
        values = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}: run from the repository's root") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except Exception as error:  # the reader's, or a conversion's: `!!bool 3` is a KeyError
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
        problems = [f"{path}: {_describe(problem, kind)}" for problem in error.errors()]
        raise UserError("; ".join(problems)) from None


def _describe(problem: Any, kind: type[Group]) -> str:
    """One mistake in the file's words: key, value, what is allowed."""
    place = one_line(".".join(map(str, problem["loc"]))) or "the file"
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        allowed = _keys_beside(problem["loc"], kind)
        close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{place} is an unknown key; {hint}allowed: {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ").replace("tuple", "list")
    if problem["type"] == "model_type":
        message = "it should hold keys and values"
    message = re.sub("^(Input|String|Tuple) should", "it should", message)
    try:
        value = one_line(repr(problem["input"]))
    except ValueError:  # thousands of digits
        value = "a value too large to show"
    return f"{place} is {value if len(value) <= 80 else f'{value[:77]}...'}; {message}"


def _keys_beside(location: tuple[Any, ...], kind: type[Group]) -> list[str]:
    """The keys allowed where the unknown key at `location` stands."""
    group: Any = kind
    for part in location[:-1]:
        if isinstance(part, int):  # in a list, whose items are of one kind
            continue
        field = next(f for name, f in group.model_fields.items() if part in (name, f.alias))
        # `X | None` holds its group among its arguments.
        kinds = getattr(field.annotation, "__args__", (field.annotation,))
        group = next(k for k in kinds if isinstance(k, type) and issubclass(k, Group))
    return [field.alias or name for name, field in group.model_fields.items()]
