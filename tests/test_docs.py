"""README.md and docs/ name what exists, and their blocks for other machines are valid."""

import re
import subprocess
from collections.abc import Iterator

from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Find the blocks of a language: the page, and its text with continued lines joined."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield str(page.relative_to(ROOT)), found[1].replace("\\\n", " ")


def test_scripts_for_other_machines_are_valid_bash():
    scripts = list(blocks("bash"))
    assert scripts
    for page, text in scripts:
        result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert result.returncode == 0, f"{page}: {result.stderr}"


def test_every_make_target_that_is_named_exists_and_every_target_is_named_by_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1]
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


def test_the_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
