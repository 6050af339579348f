"""Many at once: queued experiments, clones that share a database and a cache, two in one folder.

By default two experiments, of the 20-d model alone; EXPERIMENTS=4 runs four of the whole pipeline.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from conftest import call, commit_all, link_environment
from vae.files import md5
from vae.rebuild.build import override_params, scratch_environment
from vae.rebuild.compare import hashes

EXPERIMENTS = int(os.environ.get("EXPERIMENTS", "2"))
TARGETS = () if EXPERIMENTS > 2 else ("train-20d",)
RATES = [round(0.001 * number, 3) for number in range(1, EXPERIMENTS + 1)]


def dvc(folder: Path, *arguments: object) -> str:
    """Run DVC in `folder`; return its output."""
    return call(folder, sys.executable, "-m", "dvc", *map(str, arguments))


def start(folder: Path, *command: object, **variables: str) -> subprocess.Popen:
    """Start a command in `folder` that runs while the test goes on."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=scratch_environment() | variables, **pipes)


def lines_until(process: subprocess.Popen, text: str) -> str:
    """Read what a process prints, up to a line with this text."""
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(printed)


def runs(database: Path) -> list:
    """Read MLflow's runs, which must be finished and have all epochs."""
    client = MlflowClient(f"sqlite:///{database}")
    found = client.search_runs([client.get_experiment_by_name("vae-mnist").experiment_id])
    for one in found:
        points = client.get_metric_history(one.info.run_id, "train_loss")
        epochs = int(one.data.params["epochs"])
        assert [point.step for point in points] == list(range(1, epochs + 1)), one.info.run_name
        assert one.info.status == "FINISHED"
    return found


@pytest.fixture
def repository(finished_demo, tmp_path) -> Path:
    """A repository with the finished demo, whose next run has one epoch."""
    folder = shutil.copytree(finished_demo, tmp_path / "repository")
    override_params(folder / "params.yaml", {"train": {"epochs": 1}})
    (folder / "mlflow.db").unlink()
    commit_all(folder)
    return folder


def test_experiments_at_a_time_give_what_they_give_alone(repository, tmp_path):
    alone = shutil.copytree(repository, tmp_path / "alone")
    rates = f"train.learning_rate={','.join(map(str, RATES))}"
    dvc(repository, "exp", "run", "--queue", "--name", "rate", "-S", rates, *TARGETS)
    dvc(repository, "queue", "start", "--jobs", 2)
    references: list[str] = []
    deadline = time.monotonic() + 120 * EXPERIMENTS
    while len(references) < EXPERIMENTS and time.monotonic() < deadline:
        time.sleep(0.5)
        found = call(repository, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        references = [name for name in found if "/rate-" in name]
    status = dvc(repository, "queue", "status")
    assert len(re.findall(r" Success$", status, re.MULTILINE)) == EXPERIMENTS, status

    names = {rate: f"rate-{number}" for number, rate in enumerate(RATES, 1)}
    tracked = {one.info.run_name: one for one in runs(repository / "mlflow.db")}
    models = ["20d"] if TARGETS else ["20d", "2d"]
    assert len(tracked) == len(runs(repository / "mlflow.db")) == len(models) * EXPERIMENTS
    results = {}
    for rate, name in names.items():
        assert "waiting" not in dvc(repository, "queue", "logs", name)
        (reference,) = [each for each in references if each.endswith(f"/{name}")]
        (tmp_path / "dvc.lock").write_text(call(repository, "git", "show", f"{reference}:dvc.lock"))
        results[rate] = hashes(tmp_path / "dvc.lock")
        override_params(alone / "params.yaml", {"train": {"learning_rate": rate}})
        targets = ["--single-item", *TARGETS] if TARGETS else []
        dvc(alone, "repro", "--force", "--no-run-cache", *targets)
        assert results[rate] == hashes(alone / "dvc.lock")
        changed = [] if rate == RATES[0] else [f"learning_rate={rate}"]
        for model in models:
            one = tracked[" ".join([model, *changed, name])]
            assert one.data.params["learning_rate"] == str(rate)
            assert one.data.tags["model.md5"] == results[rate][f"models/{model}.safetensors"]
    assert len({each["models/20d.safetensors"] for each in results.values()}) == EXPERIMENTS


def test_two_clones_share_a_database_and_a_cache(repository, tmp_path):
    cache, database = tmp_path / "cache", tmp_path / "shared.db"
    clones = [tmp_path / "one", tmp_path / "two"]
    for clone in clones:
        call(tmp_path, "git", "clone", "--quiet", repository, clone)
        dvc(clone, "cache", "dir", "--local", cache)
    command = [sys.executable, "-m", "dvc", "repro", *TARGETS]
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    for process in [start(clone, *command, **uri) for clone in clones]:
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert "> python src/train.py 20d" in output
    before, one, two = (hashes(folder / "dvc.lock") for folder in (repository, *clones))
    assert one == two
    assert one["data/binarized"] == before["data/binarized"]
    assert one["models/20d.safetensors"] != before["models/20d.safetensors"]
    stored = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    assert len(stored) >= len(set(one.values()) - set(before.values()))
    for path in stored:
        assert md5(path) == f"{path.parent.name}{path.stem}", path
    found = runs(database)
    assert len(found) == (2 if TARGETS else 4)
    assert len({each.data.tags["process"] for each in found}) == len(found)


def test_a_second_make_repro_in_one_folder_waits(finished_demo, tmp_path):
    """`dvc repro` ends instead, and names the process that is at work."""
    folder = shutil.copytree(finished_demo, tmp_path / "demo")
    link_environment(folder)
    before = hashes(folder / "dvc.lock")
    forget(folder, "anomaly", "report")

    first = start(folder, "make", "repro")
    lines_until(first, "> python src/anomaly.py")
    stages: list[psutil.Process] = []
    while not stages:  # DVC prints the command before it starts it
        with contextlib.suppress(psutil.NoSuchProcess):
            family = {each.pid: each for each in psutil.Process(first.pid).children(recursive=True)}
            stages = [each for each in family.values() if each.cmdline()[1:2] == ["src/anomaly.py"]]
    (stage,) = stages
    stage.suspend()
    try:
        second = start(folder, sys.executable, "-m", "dvc", "repro")
        output = second.communicate()[0]
        assert second.returncode == 255
        (holder,) = re.findall(
            r"is busy, it is being blocked by:\n  \(PID (\d+)\): .* repro\n", output
        )
        assert int(holder) in family
        third = start(folder, "make", "repro")
        waiting = lines_until(third, "waiting")
        (holder,) = re.findall(
            r"process (\d+) \(make repro\) is at work in this folder; waiting", waiting
        )
        assert int(holder) in family
    finally:
        stage.resume()

    ran = first.communicate()[0]
    assert "Running stage 'report'" in ran
    done = third.communicate()[0]
    assert "Running stage" not in done
    assert (first.returncode, third.returncode) == (0, 0), ran + done
    assert hashes(folder / "dvc.lock") == before
    assert not list(folder.rglob(".tmp-*"))


def forget(folder: Path, *stages: str) -> None:
    """Remove the last run of these stages from DVC's files."""
    yaml = YAML()
    lock = yaml.load(folder / "dvc.lock")
    for stage in stages:
        del lock["stages"][stage]
    yaml.dump(lock, folder / "dvc.lock")
    shutil.rmtree(folder / ".dvc/cache/runs")
