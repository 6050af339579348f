"""Many at once: queued experiments, clones that share a database and a cache, two in one folder.

Of the pipeline only the 20-d model is trained, for one epoch of digits.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from conftest import call, commit_all, link_environment
from vae.files import md5
from vae.rebuild.build import override_params, scratch_environment
from vae.rebuild.compare import hashes

MODEL = "models/20d.safetensors"


def dvc(folder: Path, *arguments: object) -> str:
    """Run DVC in `folder`; return its output."""
    return call(folder, sys.executable, "-m", "dvc", *map(str, arguments))


def start(folder: Path, *command: object, **variables: str) -> subprocess.Popen:
    """Start a command in `folder` that runs while the test goes on, in a process group."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = scratch_environment() | variables
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def lines_until(process: subprocess.Popen, text: str) -> str:
    """Read what a process prints, up to a line with this text."""
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(printed)


def runs(database: Path) -> list:
    """Read MLflow's runs, which must be finished and have their epoch."""
    client = MlflowClient(f"sqlite:///{database}")
    found = client.search_runs([client.get_experiment_by_name("vae-mnist").experiment_id])
    for one in found:
        points = client.get_metric_history(one.info.run_id, "train_loss")
        assert [point.step for point in points] == [1], one.info.run_name
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
    rates = {"rate-1": 0.001, "rate-2": 0.002}
    values = f"train.learning_rate={','.join(map(str, rates.values()))}"
    dvc(repository, "exp", "run", "--queue", "--name", "rate", "-S", values, "train-20d")
    dvc(repository, "queue", "start", "--jobs", 2)
    references: dict[str, str] = {}
    deadline = time.monotonic() + 240
    while references.keys() < rates.keys() and time.monotonic() < deadline:
        time.sleep(0.5)
        found = call(repository, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        references = {name.rpartition("/")[2]: name for name in found if "/rate-" in name}
    status = dvc(repository, "queue", "status")
    assert len(re.findall(r" Success$", status, re.MULTILINE)) == 2, status

    assert len(runs(repository / "mlflow.db")) == 2
    models = set()
    for name, rate in rates.items():
        assert "waiting" not in dvc(repository, "queue", "logs", name)
        shown = call(repository, "git", "show", f"{references[name]}:dvc.lock")
        (tmp_path / "dvc.lock").write_text(shown)
        override_params(alone / "params.yaml", {"train": {"learning_rate": rate}})
        dvc(alone, "repro", "--force", "--no-run-cache", "--single-item", "train-20d")
        result = hashes(tmp_path / "dvc.lock")
        assert result == hashes(alone / "dvc.lock")
        models.add(result[MODEL])
    assert len(models) == 2


def test_two_clones_share_a_database_and_a_cache(repository, tmp_path):
    cache, database = tmp_path / "cache", tmp_path / "shared.db"
    clones = [tmp_path / "one", tmp_path / "two"]
    for clone in clones:
        call(tmp_path, "git", "clone", "--quiet", repository, clone)
        dvc(clone, "cache", "dir", "--local", cache)
    command = [sys.executable, "-m", "dvc", "repro", "train-20d"]
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    for process in [start(clone, *command, **uri) for clone in clones]:
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert "> python src/train.py 20d" in output
    before, one, two = (hashes(folder / "dvc.lock") for folder in (repository, *clones))
    assert one == two
    assert one["data/binarized"] == before["data/binarized"]
    assert one[MODEL] != before[MODEL]
    stored = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    assert len(stored) >= len(set(one.values()) - set(before.values()))
    for path in stored:
        assert md5(path) == f"{path.parent.name}{path.stem}", path
    found = runs(database)
    assert len(found) == len({each.data.tags["process"] for each in found}) == 2


def test_a_second_make_repro_in_one_folder_waits(finished_demo, tmp_path):
    folder = shutil.copytree(finished_demo, tmp_path / "demo")
    link_environment(folder)
    override_params(folder / "params.yaml", {"anomaly": {"noise_images": 500}})
    first = start(folder, "make", "repro")
    lines_until(first, "> python src/anomaly.py")
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        second = start(folder, "make", "repro")
        waiting = lines_until(second, "waiting")
        (holder,) = re.findall(r"process (\d+) \(make repro\) is at work in this folder", waiting)
        assert os.getpgid(int(holder)) == first.pid
    finally:
        os.killpg(first.pid, signal.SIGCONT)

    ran, done = first.communicate()[0], second.communicate()[0]
    assert "Running stage 'report'" in ran
    assert "Running stage" not in done
    assert (first.returncode, second.returncode) == (0, 0), ran + done
    assert not list(folder.rglob(".tmp-*"))
