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
    folders = (src / "exact", src / "networks", src / "vae")
    paths = sorted(path for folder in folders for path in folder.glob("*.[pch]*"))
    return hashlib.md5(b"".join(path.read_bytes() for path in paths)).hexdigest()


def identity(values: Mapping[str, str], data: Sequence[str]) -> str:
    """12 hexadecimal digits of a training's flat parameters (`params.flat`), of the MD5 sums of the
    splits that it reads, train and test, of PyTorch's version and of `RESULTS_VERSION`."""
    parts = [dict(values), list(data), torch_version(), RESULTS_VERSION]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest()[:12]
