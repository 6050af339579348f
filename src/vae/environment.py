"""Environment variables, fixed by importing this module before any library.

They are in `environment.mk`, which make includes. No result depends on the others.
"""

import getpass
import io
import os
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

TABLE = Path(__file__).with_suffix(".mk").read_text(encoding="utf-8")


def named(words: str) -> set[str]:
    """Return the variables of this process that `REMOVED` or `KEPT` in the table names."""
    patterns = " ".join(re.findall(rf"^{words} .?= (.*)", TABLE, re.MULTILINE)).replace("%", "*")
    return {name for name in os.environ if any(fnmatchcase(name, p) for p in patterns.split())}


for variable in named("REMOVED") - named("KEPT"):
    del os.environ[variable]
for variable, given, value in re.findall(r"^export (\w+) ([:?])= (\S+)$", TABLE, re.MULTILINE):
    os.environ[variable] = os.environ.get(variable, value) if given == "?" else value
# DVC, MLflow and matplotlib need a user name and a home, which a container may not have.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ["USER"] = str(os.getuid())
os.environ.setdefault("HOME", sys.prefix)
# Escape what a terminal cannot show, also in programs that a script starts.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
