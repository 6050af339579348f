"""A program's surroundings, fixed where a script imports this, before it imports a library.

`environment.mk` has the variables; make includes it. No result depends on what is left to the user.
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
    """Find the variables of this process that `REMOVED` or `KEPT` of the table names."""
    patterns = " ".join(re.findall(rf"^{words} .?= (.*)", TABLE, re.MULTILINE)).replace("%", "*")
    return {name for name in os.environ if any(fnmatchcase(name, p) for p in patterns.split())}


for variable in named("REMOVED") - named("KEPT"):
    del os.environ[variable]
for variable, given, value in re.findall(r"^export (\w+) ([:?])= (\S+)$", TABLE, re.MULTILINE):
    os.environ[variable] = os.environ.get(variable, value) if given == "?" else value
# A user of a container may have no name and no home, which DVC, MLflow and matplotlib ask for.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ["USER"] = str(os.getuid())
os.environ.setdefault("HOME", sys.prefix)
# What a terminal cannot show is shown as its code, also by programs that a script starts.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
