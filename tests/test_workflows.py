"""CI's workflows: their shell steps run here as GitHub's runner runs them; actions are pinned."""

import re
import shutil
import tarfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT, call, commit_all, link_environment

STEPS = {
    f"{path.stem}: {name}": [step for step in job["steps"] if "run" in step]
    for path in sorted(ROOT.glob(".github/workflows/*.yml"))
    for name, job in YAML(typ="safe").load(path)["jobs"].items()
}
NOT_RUN = {
    ".ci/run": "the other tests; CI runs it at each change",
    "make test-all": "the other tests",
    "make audit": "needs PyPI's vulnerability service",
}
RUN = {name: [step for step in STEPS[name] if step["run"] not in NOT_RUN] for name in STEPS}
# As the workflow has it, and as it is run. Only GitHub makes a release; its files must be there.
STAND_INS = {
    "make verify |": "printf 'one\\ntwo\\n' |",
    'gh release create "$TAG" --verify-tag --generate-notes': "ls",
}
# What GitHub fills in.
CONTEXTS = {
    "github.event.pull_request.base.sha || github.event.before": "HEAD",
    "steps.report.outputs.artifact-url": "https://example.org/artifact",
    "github.token": "",
    "github.ref_name": "v1",
}


@pytest.fixture
def checkout(demo: Path) -> Path:
    """A finished demo as the runner has it after a checkout and a run."""
    for name in (".ci", "docs/figures"):
        shutil.copytree(ROOT / name, demo / name)
    link_environment(demo)
    commit_all(demo)
    return demo


def run_step(step: dict, folder: Path) -> str:
    """Run a step by the runner's shell; return its output. It must succeed."""
    script = step["run"]
    for as_written, as_run in STAND_INS.items():
        script = script.replace(as_written, as_run)
    assert "${{" not in script, "a value that GitHub fills in belongs into env"
    environment = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    for name, value in step.get("env", {}).items():
        environment[name] = CONTEXTS[re.fullmatch(r"\$\{\{ (.*) \}\}", value)[1]]
    return call(folder, "bash", "-e", "-c", script, **environment)


@pytest.mark.parametrize("job", [name for name, steps in RUN.items() if steps])
def test_the_shell_steps_of_a_job_run(job, checkout):
    for step in RUN[job]:
        run_step(step, checkout)
    if job == "release: release":
        with tarfile.open(checkout / "results.tar.gz") as archive:
            names = set(archive.getnames())
        assert {"models/2d.safetensors", "metrics/summary.json", "plots/manifold.gif"} <= names
        assert not any(name.endswith(".arrow") for name in names)
    if job == "reproduce: reproduce":
        summary = (checkout / "summary.md").read_text()
        assert "(https://example.org/artifact)" in summary
        assert (checkout / "page/index.html").exists()
    if job == "verify: verify":
        assert (checkout / "summary.md").read_text() == "```\none\ntwo\n```\n"


def test_steps_that_are_not_run_are_still_there():
    scripts = [step["run"] for steps in STEPS.values() for step in steps]
    assert set(NOT_RUN) <= set(scripts)
    assert all(any(text in script for script in scripts) for text in STAND_INS)


def test_the_summary_shows_metrics_that_differ_from_the_commit(checkout):
    def summary(commit: str) -> str:
        return run_step({"run": f".ci/summary {commit}"}, checkout)

    first = call(checkout, "git", "rev-parse", "HEAD").strip()
    assert "No metric differs." in summary(first)
    metrics = checkout / "metrics/summary.json"
    metrics.write_text(re.sub(r"\d+\.\d+", "1.5", metrics.read_text(), count=1))
    call(checkout, "git", "commit", "-qam", "another")
    text = summary(first)
    assert f"this run against {first[:12]}" in text
    assert re.search(r"^\| metrics/summary.json +\|.* -?1\.5 ", text, re.MULTILINE), text
    assert re.search(r"^## Verdicts\n\n```text\n(.+\n)+```$", text, re.MULTILINE), text
    assert text.count("![") == len([*(checkout / "docs/figures").iterdir()])
    assert "There is no such commit here" in summary("0" * 40)  # as of a new branch


def test_every_action_is_named_by_commit_and_version():
    texts = [path.read_text() for path in ROOT.glob(".github/workflows/*.yml")]
    actions = re.findall(r"uses: (.*)", "".join(texts))
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert actions
    assert [action for action in actions if not pinned.fullmatch(action)] == []
