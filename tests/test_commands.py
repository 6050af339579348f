"""The commands of README.md and docs/ are run, on scikit-learn's digits, in a clone for each page.

A block marked ```console holds commands, one a line; output and files go under ```text. Commands
that cannot be run here are in `NOT_RUN`, word by word, with the reason.
"""

import re
import shutil
from importlib.util import find_spec

import pytest

from conftest import ROOT, call, commit_all, link_environment
from test_docs import blocks

NOT_RUN = {
    "make test": "the other tests",
    "make bench": "installs JAX and takes minutes; tests/test_benchmarks.py runs its parts",
    "make bench-growth": "minutes",
    "make audit": "asks PyPI, each week in CI",
    "make ui": "goes on until Ctrl-C; tests/test_security.py runs it",
    "make study": "eight minutes; tests/test_study.py runs studies",
    "make verify": "three minutes on MNIST, each week in CI",
    "make verify OPTIONS=--quick": "tests/test_verify.py runs it",
    "python src/tools/study.py --seeds 0-999 --address 10.0.0.1:6379 --output studies/many.csv": (
        "needs a cluster"
    ),
    "ray start --head --port 6379": "needs two machines; tests/test_study.py starts two nodes",
    "ray start --address 10.0.0.1:6379": "as above",
    "ray stop": "would stop Ray for everybody on this machine",
}


def bare(line: str) -> str:
    """A command without its comment and its padding."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())


needs_ray = pytest.mark.skipif(
    not find_spec("ray"), reason="Ray is the studies' only; make test-all installs it"
)
COMMANDS: dict[str, list[str]] = {}
for page, text in blocks("console"):
    COMMANDS.setdefault(page, []).extend(line for line in text.splitlines() if bare(line))
RUN = {page: [li for li in lines if bare(li) not in NOT_RUN] for page, lines in COMMANDS.items()}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=needs_ray if "src/tools/study.py" in str(RUN[page]) else ())
        for page in RUN
        if RUN[page]
    ],
)
def test_the_commands_of_a_page_run(demo, page):
    link_environment(demo)
    shutil.copytree(ROOT / "docs", demo / "docs")
    commit_all(demo)
    script = "\n".join(RUN[page]).replace("--seeds 0-9 ", "--seeds 0-1 ")
    assert not re.search(r"\b(pip|pipx|npm|apt|uv) ", script), "installs something: NOT_RUN"
    call(demo, "bash", "-ex", "-o", "pipefail", "-c", script)


def test_commands_that_are_not_run_are_still_documented():
    written = {bare(line) for lines in COMMANDS.values() for line in lines}
    assert set(NOT_RUN) <= written
