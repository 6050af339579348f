"""Real kills of the real pipeline, on scikit-learn's digits.

The environment variable KILLS says how many: 24 are one of each victim in each stage.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from conftest import ROOT
from repro import restore_after_kill
from vae.rebuild.build import scratch_environment
from vae.rebuild.compare import hashes

KILLS = int(os.environ.get("KILLS", "3"))
STAGES = ("download", "binarize", "train-20d", "train-2d")
STAGES += ("visualize", "anomaly", "likelihood", "report")
VICTIMS = ("stage", "dvc", "group")
TRAIN_2D = ("--force", "--no-run-cache", "--single-item", "train-2d")


def start(folder: Path, *options: object, until="", program="repro") -> subprocess.Popen:
    """Start a program in a process group of its own; read to a line that starts with `until`."""
    command = [sys.executable, f"src/tools/{program}.py", *options]
    surroundings = {"cwd": folder, "env": scratch_environment(), "start_new_session": True}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **surroundings, **pipe)
    if until:
        assert any(line.startswith(until) for line in process.stdout), f"no line is {until}"
    return process


def finish(process: subprocess.Popen) -> str:
    """Wait for a process, which must succeed; return what it printed."""
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs(folder: Path) -> list:
    experiment = store(folder).get_experiment_by_name("vae-mnist")
    return store(folder).search_runs([experiment.experiment_id])


def assert_recovers(folder: Path, before: dict[str, str]) -> str:
    """The next `make repro` ends with the outputs of an undisturbed run; what it printed.

    Without the run cache, as where the killed run was the first of its kind.
    """
    output = finish(start(folder, "--no-run-cache"))
    after = hashes(folder / "dvc.lock")
    assert {name: after.get(name) for name in before} == before, output
    assert not list(folder.rglob(".tmp-*"))
    assert not list(folder.glob(".checkpoints/*")), output
    for run in runs(folder):
        assert run.info.status in ("FINISHED", "KILLED")
        history = store(folder).get_metric_history(run.info.run_id, "train_loss")
        steps = [point.step for point in history]
        assert sorted(set(steps)) == steps
    return output


@pytest.mark.parametrize("number", range(KILLS))
def test_repro_after_a_kill_gives_the_same_bytes(demo, number):
    """kill -9 of the stage, of DVC, or of the whole group, at some moment of a stage."""
    before = hashes(demo / "dvc.lock")
    stage = f"Running stage '{STAGES[number % len(STAGES)]}'"
    process = start(demo, "--force", "--no-run-cache", until=stage)
    time.sleep(random.Random(number).uniform(0, 4))
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    victim = VICTIMS[number % len(VICTIMS)]
    if victim == "group" and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "dvc":
        process.kill()
    else:
        for member in family:
            member.kill()
    process.communicate()
    # A stage goes on when its DVC is killed; that must not matter either.
    psutil.wait_procs(family, timeout=60)
    assert_recovers(demo, before)


# Empty; where a write buffer of Python's ends; within a number, after a key, at the end of a line.
@pytest.mark.parametrize("end", (0, 8192, "md5: 3", "    outs:\n", "      hash: md5\n"))
def test_a_torn_dvc_lock_is_restored_with_the_same_bytes(demo, end):
    lock = demo / "dvc.lock"
    whole, number = lock.read_text(), lock.stat().st_ino
    restore_after_kill(demo)
    assert lock.stat().st_ino == number  # a whole one is left as it is
    torn = whole[:end] if isinstance(end, int) else whole[: whole.rindex(end) + len(end)]
    lock.write_text(torn)
    (demo / ".dvc/tmp/rwlock").write_text('{"read": {')
    finish(start(demo))
    assert lock.read_text() == whole


def test_a_stage_waits_for_the_stage_of_a_killed_dvc(demo):
    """Two would write the same files at once."""
    before = hashes(demo / "dvc.lock")
    process = start(demo, *TRAIN_2D, until="epoch 1,")
    (stage,) = psutil.Process(process.pid).children()
    stage.suspend()
    process.kill()
    process.wait()
    waiting = f"process {stage.pid} (train-2d) is at work in this folder; waiting"
    again = start(demo, *TRAIN_2D, until=waiting)
    stage.kill()
    finish(again)
    assert hashes(demo / "dvc.lock") == before


def test_temporary_files_are_removed_unless_dvc_runs(demo):
    stray = demo / "plots/.tmp-manifold.gif"
    stray.write_text("torn")
    rwlock = demo / ".dvc/tmp/rwlock"
    rwlock.write_text(json.dumps({"write": {"plots": {"pid": os.getpid()}}}))
    restore_after_kill(demo)
    assert stray.exists()
    rwlock.write_text("{}")
    restore_after_kill(demo)
    assert not stray.exists()


def test_a_killed_training_continues_after_its_last_epoch(demo):
    before = hashes(demo / "dvc.lock")
    shutil.rmtree(demo / ".dvc/cache")  # as where nobody has trained this before
    # The training takes a second; it may end before the kill, and leave no checkpoint.
    for _ in range(10):
        process = start(demo, *TRAIN_2D, until="epoch 3,")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if (demo / ".checkpoints/2d/state.safetensors").exists():
            break
    output = assert_recovers(demo, before)
    assert ".checkpoints/2d/state.safetensors: continuing after epoch " in output
    assert ("KILLED", "2d") in [(run.info.status, run.data.tags["model"]) for run in runs(demo)]


def test_ctrl_c_ends_a_training_at_once_with_one_line(demo):
    process = start(demo, *TRAIN_2D, until="epoch 1,")
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate()[0].splitlines()
    lines = [line for line in printed if line and not line.startswith(("> ", "epoch "))]
    assert time.monotonic() - started < 5
    assert process.returncode != 0
    assert lines[0] == "interrupted"
    assert len(lines) == 2  # and DVC's


def test_a_demo_that_is_stopped_ends_its_pipeline_first(tmp_path):
    running = "Running stage 'train-20d'"
    process = start(ROOT, tmp_path / "demo", program="demo", until=running)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.terminate()
    output = process.communicate()[0]
    assert process.returncode == 130
    assert output.endswith("interrupted\n")
    # What is dead may stay in the list of processes until its parent looks.
    living = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert living == []
