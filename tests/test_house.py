"""The house as docs and readers know it: which way imports run, names used once, sizes."""

import ast
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from conftest import ROOT

SRC = ROOT / "src"
FILES = sorted(SRC.rglob("*.py"))
# Of each room: lines of Python at most, which is what it has today, so that it does not grow by
# accident; and the rooms whose names it may import.
ROOMS = {
    "stages": (557, {"vae", "report", "reproduction", "tracking"}),
    "tools": (738, {"vae", "report", "reproduction", "rebuild", "study", "tracking"}),
    "exact": (1160, set()),
    "networks": (20, {"exact", "vae"}),
    "vae": (2322, {"exact"}),
    "report": (701, {"exact", "vae", "reproduction"}),
    "reproduction": (379, {"exact", "vae"}),
    "rebuild": (131, {"exact", "vae"}),
    "study": (200, {"exact", "vae", "reproduction"}),
    "tracking": (606, {"exact", "vae", "report", "reproduction", "rebuild", "study"}),
}
MOST = 6_800  # lines in all


def room(parts: Sequence[str]) -> str:
    """The room of a file below src/, or of a module, given the parts of its path or dotted name."""
    if parts[0] == "vae":
        return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "vae"
    return parts[0] if parts[0] in ROOMS else "stages"


def room_of(path: Path) -> str:
    return room(path.relative_to(SRC).parts)


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_run_one_way_and_only_scripts_import_tracking(path):
    own = room_of(path)
    names = [name.split(".") for name in imported(path)]
    ours = {room(name) for name in names if name[0] in ("vae", "exact", "networks")}
    assert ours <= {own} | ROOMS[own][1] | ({"exact"} if own in ("stages", "tools") else set())


def test_exact_imports_only_torch_and_numpy_of_others():
    paths = [path for path in FILES if room_of(path) == "exact"]
    tops = {name.partition(".")[0] for path in paths for name in imported(path)}
    assert tops - sys.stdlib_module_names - {"exact"} == {"torch", "numpy"}


def test_rooms_and_the_whole_keep_their_budgets_of_lines():
    lines = Counter()
    for path in FILES:
        lines[room_of(path)] += len(path.read_text().splitlines())
    assert {name for name, count in lines.items() if count > ROOMS[name][0]} == set()
    assert lines.total() <= MOST


def test_no_two_files_or_public_functions_share_a_name():
    stems = Counter(path.stem for path in FILES if path.stem != "__init__")
    nodes = chain.from_iterable(ast.parse(path.read_text()).body for path in FILES)
    named = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))
    names = Counter(node.name for node in named if not node.name.startswith("_"))
    # Each script has its `main`; tools that have options have a `parse`.
    twice = {name for name, count in (stems | names).items() if count > 1}
    assert twice <= {"main", "parse"}


def test_importing_a_package_does_nothing_but_import():
    allowed = ast.Import | ast.ImportFrom | ast.Assign
    for path in SRC.rglob("__init__.py"):
        _, *rest = ast.parse(path.read_text()).body
        assert all(isinstance(node, allowed) for node in rest), path


@pytest.mark.parametrize("path", [*SRC.glob("*.py"), *SRC.glob("tools/*.py")], ids=lambda p: p.name)
def test_a_script_has_a_main_and_at_most_150_lines(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    assert path.stem == "src_path" or "    cli.run(main)\n" in text
