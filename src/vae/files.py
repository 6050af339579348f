"""Files written whole, with bytes that repeat; JSON, checksums, and the files that DVC sees."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from vae.cli import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

# What safetensors raises for a type that NumPy does not have, as bfloat16.
NO_TYPE = (TypeError, AttributeError)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it when the block succeeds.

    The temporary name is fixed, so that the next run overwrites what a killed one left. It keeps
    the suffix, by which image writers choose their format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # that of a full disk has no name
        raise
    finally:
        # On a read-only disk this fails even where there is no such file.
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line ends."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; NaN and infinities raise ValueError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(path: Path, table: "DataFrame") -> None:
    """Write a table as CSV, without its index."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as safetensors."""
    with written_whole(path) as temporary:
        temporary.write_bytes(save(dict(tensors)))


def records(table: "DataFrame") -> list[dict[str, Any]]:
    """Return a table's rows for JSON, with None for NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def read_json(path: Path, *keys: str) -> Any:
    """Read a JSON file. Raises UserError when it is missing, damaged or lacks one of `keys`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if missing := [key for key in keys if key not in value]:
            raise ValueError(f"it has no {missing[0]}")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None
    return value


def dvc_files(*folders: Path) -> list[Path]:
    """List the files below folders of the repository that DVC sees: those not in .dvcignore.

    Raises UserError for links to folders, into which DVC does not look, and names not in UTF-8.
    """
    from pathspec import GitIgnoreSpec  # takes 0.05 s, and few stages need it

    ignored = GitIgnoreSpec.from_lines(Path(".dvcignore").read_text("utf-8").splitlines())
    found = []
    for path in sorted(chain(*(folder.iterdir() for folder in folders if folder.is_dir()))):
        is_folder = path.is_dir()
        if ignored.match_file(f"{path}/" if is_folder else path):
            continue
        name = f"{Path.cwd()}/{path}"
        if re.search("[\ud800-\udfff]", name):
            raise UserError(f"{name}, which DVC cannot follow, is not in UTF-8; rename it")
        if path.is_symlink() and not path.is_file():
            raise UserError(
                f"{name}, which DVC cannot follow, is a link to a folder or to nothing; copy or "
                "link its files instead"
            )
        found += dvc_files(path) if is_folder else [path]
    return found


def md5(path: Path) -> str:
    """Return a file's MD5 checksum, by which DVC names it, as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
