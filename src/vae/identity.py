"""What decides a training's result, as one short text: its identity."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

# Raise it by hand when a change of the code changes the bits of a result: tests/test_identity.py
# asks for it. Checkpoints, MLflow's runs and studies' trials of another version are not taken for
# this one's.
RESULTS_VERSION = 1


def torch_version() -> str:
    """PyTorch's version, read from the installed package: importing it takes seconds."""
    return version("torch").partition("+")[0]


def code_hash() -> str:
    """Hash the source files that a training's bits depend on, as 32 hexadecimal digits.

    A checkpoint belongs to one code; an identity does not, so that studies survive an edit.
    """
    src = Path(__file__).parents[1]
    paths = [*(src / "exact").glob("*.[pch]*"), *(src / "vae").glob("*.py")]
    paths = sorted([*paths, *(src / "networks").rglob("*.py")])
    return hashlib.md5(b"".join(path.read_bytes() for path in paths)).hexdigest()


def identity(values: Mapping[str, str], data: Sequence[str]) -> str:
    """Hash a training's flat parameters (`params.flat`), the checksums of its train and test
    splits, PyTorch's version and `RESULTS_VERSION`, as 12 hexadecimal digits."""
    parts = [dict(values), list(data), torch_version(), RESULTS_VERSION]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest()[:12]
