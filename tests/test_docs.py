"""Every command of README.md and docs/ is run, on scikit-learn's digits, in a repository of its own.

A block marked ```console holds commands, one a line; output and files go under ```text. What cannot be run
here is in `NOT_RUN`, word by word, with the reason.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT, commit_all, lend_environment
from test_study import needs_ray
from vae.rebuild.build import scratch_environment

import pytest

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
NOT_RUN = {
    "make test": "the other tests",
    "make ui": "goes on until Ctrl-C; tests/test_security.py runs it",
    "make study": "eight minutes; tests/test_study.py runs studies",
    "make verify": "three minutes on MNIST, each week in CI",
    "make verify OPTIONS=--quick": "tests/test_verify.py runs it",
    "make verify OPTIONS=--portable": "two minutes on MNIST",
    "python src/tools/study.py --seeds 0-999 --address 10.0.0.1:6379 --output studies/many.csv": "needs a cluster",
    "ray start --head --port 6379": "needs two machines; tests/test_study.py starts two nodes on one",
    "ray start --address 10.0.0.1:6379": "as above",
    "ray stop": "would stop Ray for everybody on this machine",
    "pipx run pip-audit --disable-pip --require-hashes -r requirements.lock": "needs PyPI's own index",
}
# As the text has it, and as it is run.
SHORTER = {"--seeds 0-9 ": "--seeds 0-1 "}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The blocks of a language: page and line, and text with continued lines joined."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", found[1].replace("\\\n", " ")


def bare(line: str) -> str:
    """A command without its comment and its padding."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())


CONSOLE = dict(blocks("console"))


@pytest.fixture(scope="module")
def repository(finished_demo, tmp_path_factory) -> Path:
    """The finished demo as a reader's clone, set up."""
    folder = shutil.copytree(finished_demo, tmp_path_factory.mktemp("docs") / "repository")
    lend_environment(folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    commit_all(folder)
    return folder


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=needs_ray if "src/tools/study.py" in CONSOLE[place] else ())
        for place in CONSOLE
    ],
)
def test_the_commands_of_a_block_can_be_run_one_after_the_other(repository, place):
    commands = [
        line for line in CONSOLE[place].splitlines() if bare(line) and bare(line) not in NOT_RUN
    ]
    script = "\n".join(commands)
    for as_written, as_run in SHORTER.items():
        script = script.replace(as_written, as_run)
    assert not re.search(r"\b(pip|pipx|npm|apt|uv) ", script), (
        "would install something on this machine: NOT_RUN"
    )
    environment = scratch_environment()
    environment["PATH"] = f"{repository}/.venv/bin:{environment['PATH']}"
    result = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=repository,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}"


def test_what_is_not_run_stands_in_a_block_still():
    written = {bare(line) for text in CONSOLE.values() for line in text.splitlines()}
    assert set(NOT_RUN) <= written


def test_scripts_for_other_machines_are_valid_bash():
    scripts = dict(blocks("bash"))
    assert scripts
    for place, text in scripts.items():
        result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert result.returncode == 0, f"{place}: {result.stderr}"


def test_every_make_target_that_is_named_exists_and_every_target_is_named_by_help():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(phony.split())
    for page in PAGES:
        code = re.findall(r"`(make [^`\n]+)`|^(make .+)$", page.read_text(), re.MULTILINE)
        named = {word for pair in code for word in re.findall(r"\bmake ([a-z-]+)", "".join(pair))}
        assert named <= set(targets), page


def test_every_file_that_the_pages_link_to_exists():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
