"""README.md and docs/ name what exists, are short, and show what their commands print.

A ```text block is the output of the ```console block before it, or has one of two marks above it:
<!-- run DATE --> for what is too slow to run here, <!-- in a clone --> for a clone of a small demo.
"""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import ROOT, call
from vae.files import md5
from vae.rebuild.build import scratch_environment
from vae.rebuild.compare import hashes

PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Find the blocks of a language: the page, and its text with continued lines joined."""
    for page in PAGES:
        for _, kind, text in BLOCK.findall(page.read_text()):
            if kind == language:
                yield str(page.relative_to(ROOT)), text.replace("\\\n", " ")


def outputs() -> Iterator[tuple[str, str, str, str]]:
    """Find what the pages print: the page, the mark, the commands and their output."""
    for page in PAGES:
        found = [("", "", ""), *BLOCK.findall(page.read_text())]
        for (_, kind, commands), (mark, language, output) in pairwise(found):
            if language == "text":
                name = str(page.relative_to(ROOT))
                yield name, mark, commands if kind == "console" else "", output


def has_results() -> bool:
    """Whether the models are here and those of dvc.lock, and MLflow has them."""
    locked, models = hashes(ROOT / "dvc.lock"), [f"models/{n}.safetensors" for n in ("20d", "2d")]
    here = all((ROOT / name).exists() for name in ("mlflow.db", *models))
    return here and all(md5(ROOT / name) == locked[name] for name in models)


def printed(commands: str, folder: Path) -> str:
    """Run a block's commands in a folder; return all that they print, errors too."""
    options = {"env": scratch_environment(), "stderr": subprocess.STDOUT, "text": True}
    command = ["bash", "-c", commands]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, **options).stdout


def test_each_output_has_its_command_or_a_date():
    for page, mark, commands, output in outputs():
        dated = re.fullmatch(r"run \d{4}-\d\d-\d\d", mark)
        assert dated or (commands and mark in ("", "in a clone")), f"{page}: {output}"


PRINTED = [pytest.param(*shown, id=page) for page, mark, *shown in outputs() if not mark]


@pytest.mark.skipif(not has_results(), reason="needs the committed results: make repro")
@pytest.mark.parametrize(("commands", "output"), PRINTED)
def test_commands_print_what_the_page_shows(commands, output):
    assert output in printed(commands, ROOT)


def test_a_clone_prints_what_the_page_shows(repository, tmp_path):
    call(repository, "dvc", "remote", "add", "--default", "store", tmp_path / "store")
    call(repository, "git", "commit", "--quiet", "--message", "remote", ".dvc/config")
    call(repository, "dvc", "push")
    shown = [(commands, output) for _, mark, commands, output in outputs() if "clone" in mark]
    assert shown
    for number, (commands, output) in enumerate(shown):
        clone = tmp_path / f"clone{number}"
        call(tmp_path, "git", "clone", "--quiet", repository, clone)
        assert printed(commands, clone) == output


def test_scripts_for_other_machines_are_valid_bash():
    for page, text in blocks("bash"):
        result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert result.returncode == 0, f"{page}: {result.stderr}"


def test_make_targets_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1]
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(phony.split())
    for page in PAGES:
        code = re.findall(r"`(make [^`\n]+)`|^(make .+)$", page.read_text(), re.MULTILINE)
        named = {word for pair in code for word in re.findall(r"\bmake ([a-z-]+)", "".join(pair))}
        assert named <= set(targets), page


def test_files_that_pages_name_exist():
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"
        assert set(re.findall(r"test_\w+\.py", text)) <= tests, page


@pytest.mark.parametrize("page", [*PAGES, ROOT / "src/exact/README.md"], ids=lambda page: page.stem)
def test_a_page_has_at_most_900_words(page):
    assert len(page.read_text().split()) <= 900
