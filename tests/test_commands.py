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


COMMANDS = [(page, line) for page, text in blocks("console") for line in text.splitlines()]
RUN: dict[str, list[str]] = {}
for page, line in COMMANDS:
    if bare(line) and bare(line) not in NOT_RUN:
        RUN.setdefault(page, []).append(line)


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(demo, page):
    script = "\n".join(RUN[page]).replace("--seeds 0-9 ", "--seeds 0-1 ")
    if "src/tools/study.py" in script and not find_spec("ray"):
        pytest.skip("Ray is the studies' only; make test-all installs it")
    link_environment(demo)
    shutil.copytree(ROOT / "docs", demo / "docs")
    commit_all(demo)
    assert not re.search(r"\b(pip|pipx|npm|apt|uv) ", script), "installs something: NOT_RUN"
    call(demo, "bash", "-ex", "-o", "pipefail", "-c", script)


def test_commands_that_are_not_run_are_still_documented():
    assert NOT_RUN.keys() <= {bare(line) for _, line in COMMANDS}
