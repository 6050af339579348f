"""What decides a training's result, in a few digits."""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

# The code that a training's numbers depend on.
CODE = ("gradient", "model", "objective", "optimizer", "scores", "stream", "training")


def fingerprint(parameters: Any, data: list[str]) -> str:
    """12 hexadecimal digits of parameters, as JSON can hold them, data files' MD5 sums, code and PyTorch."""
    here = Path(__file__).parent
    # As parsed, so that neither comments nor layout matter.
    code = [ast.dump(ast.parse((here / f"{name}.py").read_text(encoding="utf-8"))) for name in CODE]
    text = json.dumps([parameters, data, code, torch.__version__], sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest()[:12]
