"""What decides a training's result, as one short text: its identity."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

# Raise it by hand when a change of the code changes the bits of a result: tests/test_identity.py
# asks for it. Checkpoints, MLflow's runs and studies' trials of another version are not taken for
# this one's.
RESULTS_VERSION = 1
SRC = Path(__file__).parents[1]


def torch_version() -> str:
    """PyTorch's version, read from the installed package: importing it takes seconds."""
    return version("torch").partition("+")[0]


def code_hash() -> str:
    """Hash the source files that a training's bits depend on, as 32 hexadecimal digits.

    A checkpoint belongs to one code; an identity does not, so that studies survive an edit.
    """
    paths = [*(SRC / "exact").glob("*.[pch]*"), *(SRC / "vae").glob("*.py")]
    return _hash([*paths, *(SRC / "networks").rglob("*.py")])


def _hash(paths: Iterable[Path]) -> str:
    return hashlib.md5(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()


def identity(values: Mapping[str, str], data: Sequence[str]) -> str:
    """Hash a training's flat parameters (`params.flat`), the checksums of its train and test
    splits, PyTorch's version and `RESULTS_VERSION`, as 12 hexadecimal digits.

    A model class of the user's own has no version, so its code counts instead.
    """
    parts = [dict(values), list(data), torch_version(), RESULTS_VERSION]
    if any("networks." in value for value in values.values()):
        parts.append(_hash((SRC / "networks").rglob("*.py")))
    text = json.dumps(parts, sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest()[:12]
