"""What DVC shows of an experiment, and how another clone gets it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from conftest import ROOT, call, commit_all, copy_demo
from vae.rebuild.build import scratch_environment


@pytest.fixture(scope="module")
def experiment(finished_demo, tmp_path_factory):
    """A repository with a DVC remote and an experiment named `short`; tests only read it."""
    repository = copy_demo(finished_demo, tmp_path_factory.mktemp("experiment") / "vae")
    commit_all(repository)
    store = tmp_path_factory.mktemp("store")
    call(repository, "dvc", "remote", "add", "--default", "store", store)
    call(repository, "git", "commit", "--quiet", "-m", "remote", ".dvc/config")
    call(repository, "dvc", "exp", "run", "--set-param", "train.epochs=1", "--name", "short")
    return repository


def test_make_experiments_shows_losses_and_parameters_in_80_columns(experiment):
    command = shlex.split(call(ROOT, "make", "--dry-run", "experiments").splitlines()[-1])
    table = call(experiment, *command)
    assert max(map(len, table.splitlines())) <= 80
    short = next(line.split() for line in table.splitlines() if "short" in line)
    summary = json.loads(call(experiment, "git", "show", "HEAD:metrics/summary.json"))
    assert short[0] == "short"
    assert float(short[1]) - float(short[2]) == pytest.approx(summary["20d"]["test_loss"], abs=2e-3)
    assert float(short[3]) - float(short[4]) == pytest.approx(summary["2d"]["test_loss"], abs=2e-3)
    assert short[5:] == ["train.epochs=1"]


def test_dvc_exp_show_has_its_columns_in_80_columns(experiment):
    page = (ROOT / "docs/sharing.md").read_text()
    (command,) = re.findall(r"^dvc exp show .*--drop.*$", page, re.MULTILINE)
    table = call(experiment, *shlex.split(command))
    assert max(map(len, table.splitlines())) <= 80
    for word in ("20d.test_loss", "2d.test_loss", "train.epochs", "[short]"):
        assert word in table
    assert "…" not in table


def test_a_grid_counts_what_failed_and_earlier_experiments_stay(repository):
    command = [sys.executable, "src/tools/experiments.py"]
    grid = [*command, "train.epochs=1 train.learning_rate=10,0.002"]
    form = {"cwd": repository, "env": scratch_environment(), "text": True}
    result = subprocess.run(grid, stdout=PIPE, stderr=STDOUT, **form)
    assert result.returncode == 1
    *output, failure = result.stdout.splitlines()
    (failed,) = re.fullmatch("error: 1 of 2 experiments have no results: (.*)", failure).groups()
    (line,) = [line for line in output if line.startswith(failed)]
    assert line.split()[1:] == ["failed", "train.epochs=1"]
    assert not re.search("is frozen|dvc push|Ran experiment", result.stdout)
    (other,) = [line for line in output if line.endswith("train.learning_rate=0.002")]
    call(repository, "git", "commit", "--quiet", "--allow-empty", "--message", "later")
    assert other in call(repository, *command).splitlines()


def test_metrics_diff_has_the_few_numbers_that_matter(experiment):
    summary = ("--targets", "metrics/summary.json")
    changes = json.loads(call(experiment, "dvc", "metrics", "diff", "--json", *summary))
    # The study has other data than the demo, so there are no deviations of its seeds.
    names = ("train_loss", "test_loss", "test_log_likelihood")
    headlines = {f"{model}.{name}" for model in ("20d", "2d") for name in names}
    assert set(changes["metrics/summary.json"]) == {"noise_kl"} | headlines
    losses = changes["metrics/summary.json"]["20d.test_loss"]
    assert losses["diff"] == pytest.approx(losses["new"] - losses["old"])
    scores = ("--targets", "metrics/anomaly.json")
    more = json.loads(call(experiment, "dvc", "metrics", "diff", "--json", *scores))
    assert "kinds.coin flips.kl.roc_auc" in more["metrics/anomaly.json"]


@pytest.mark.parametrize("revisions", [(), ("HEAD~1",), ("HEAD~1", "HEAD")])
def test_plots_have_titles_units_and_published_curves(experiment, tmp_path, revisions):
    words = ("diff", *revisions) if revisions else ("show",)
    call(experiment, "dvc", "plots", *words, "--out", tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert '<meta charset="utf-8">' in page
    curves = [json.loads(text) for text in re.findall(r"var spec = (\{.*\});", page)]
    for curve, model in zip(curves, ("20", "2"), strict=True):
        assert curve["title"]["text"] == f"Losses, {model}-d latent space"
        axes = curve["spec"]["encoding"]
        assert (axes["x"]["title"], axes["y"]["title"]) == ("Epoch", "Loss (nats per image)")
        assert "<DVC_METRIC" not in json.dumps(curve)
        values = curve["data"]["values"]
        names = {f"data/published/{source}-{model}d" for source in ("post", "notebook-2019-06-05")}
        names.add(f"plots/{model}d-losses")
        sources = {value["filename::field"] for value in values}
        splits = ("train", "test")
        assert sources == {f"{name}.csv::{split}_loss" for name in names for split in splits}
        ours = {v["rev"] for v in values if v["filename::field"].startswith("plots/")}
        assert ours == (set(revisions) if len(revisions) == 2 else {*revisions, "workspace"})
    if len(revisions) < 2:
        for name in ("reconstruction.gif", "manifold-early.gif", "latent.png", "anomalies.png"):
            assert (tmp_path / f"static/workspace_plots_{name}").is_file()
            assert f"plots/{name}" in page


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_the_curves_are_drawn_without_a_network(experiment, tmp_path):
    (experiment / ".venv").mkdir()
    (experiment / ".venv/vega.js").symlink_to(Path(sys.prefix) / "vega.js")
    call(experiment, "dvc", "plots", "show")
    page = (experiment / "dvc_plots/index.html").as_uri()
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000")
    alone = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}")
    drawn = call(experiment, "chromium", *options, *alone, "--dump-dom", page)
    assert drawn.count('class="marks"') == 2


def test_an_experiment_goes_to_a_clone_that_runs_no_stage(experiment, tmp_path):
    hub, clone = tmp_path / "hub.git", tmp_path / "clone"
    call(tmp_path, "git", "clone", "--quiet", "--bare", experiment, hub)
    call(experiment, "dvc", "exp", "push", str(hub), "short")
    call(tmp_path, "git", "clone", "--quiet", hub, clone)
    assert "short" in call(clone, "dvc", "exp", "list", "origin")
    call(clone, "dvc", "exp", "pull", "origin", "short")
    call(clone, "dvc", "exp", "apply", "short")
    call(clone, "dvc", "status", "--quiet")
    assert "Running stage" not in call(clone, "dvc", "repro")
    result = "metrics/summary.json"
    assert (clone / result).read_bytes() == (experiment / result).read_bytes()
    assert "epochs: 1" in (clone / "params.yaml").read_text()
