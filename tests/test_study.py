"""Studies on real Ray processes; `make test-all` installs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo as demo_script
from conftest import ROOT, listening
from vae.params import override_params

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from vae.study.table import append_rows, read_rows

needs_ray = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode != 0,
    reason="Ray is the studies' only; make test-all installs it",
)


@pytest.fixture
def workspace(tmp_path, digits):
    """A folder with scikit-learn's digits and parameters for trials of a few seconds."""
    shutil.copytree(digits, tmp_path / "data/binarized")
    shutil.copytree(ROOT / "data/published", tmp_path / "data/published")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    override_params(tmp_path / "params.yaml", demo_script.OVERRIDES)
    override_params(
        tmp_path / "params.yaml", {"train": {"epochs": 3}, "tracking": {"enabled": False}}
    )
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen:
    """A study of the 20-d model in a process of its own."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    }
    command = [
        sys.executable,
        ROOT / "src/tools/study.py",
        "--models",
        "20d",
        "--output",
        "out.csv",
        *options,
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def study(folder: Path, *options: str, status: int = 0) -> str:
    """What a study prints, which ends with this status."""
    process = start(folder, *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, output + errors
    return output + errors


def wait_for_trials(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while read_rows(folder / "out.csv.partial")["trial"].nunique() < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers(of: int | None = None) -> list[psutil.Process]:
    """Ray's processes that are at a trial, of this driver or of any."""
    processes = psutil.Process(of).children(recursive=True) if of else psutil.process_iter()
    return [process for process in processes if process.name().startswith("ray::run_trial")]


def row(trial: str, epoch: int, noise: float | None) -> dict:
    losses = {"train_loss": 90.5, "test_loss": 91.5}
    names = {"trial": trial, "model": "20d", "arm": "defaults", "seed": 1}
    return {**names, "epoch": epoch, **losses, "noise_kl": noise}


def test_of_a_table_that_a_kill_cut_off_only_whole_trials_are_read(tmp_path):
    path = tmp_path / "table.csv"
    path.touch()
    append_rows(path, [row("1e5", 1, None), row("1e5", 2, 61.25)])
    append_rows(path, [row("b", 1, None), row("b", 2, 60.75)])
    whole = path.read_text()
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        expected = ["1e5"] if cut >= whole.index("b,20d") else []
        assert list(read_rows(path)["trial"].unique()) == expected, whole[:cut]
    path.write_text(whole)
    assert read_rows(path)["noise_kl"].dropna().tolist() == [61.25, 60.75]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--seeds", "three"], 2, "argument --seeds"),
        (["--seeds", "5-1"], 2, "names no seeds"),
        (["--set", "train.learning_rate"], 2, "is not KEY=VALUE,VALUE"),
        (["--models", "3d"], 2, "there is no model 3d"),
        (["--set", "train.learning_rat=1"], 1, "did you mean learning_rate?"),
        (["--set", "trai.epochs=1"], 1, "has no group trai"),
        (["--set", "train.epochs=0"], 1, "train.epochs is 0"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_before_anything_starts(
    workspace, options, status, message
):
    output = study(workspace, *options, status=status)
    assert message in output
    assert "Traceback" not in output
    assert not list(workspace.glob("out*"))


def test_without_ray_it_says_how_to_install_it(workspace, monkeypatch):
    (workspace / "hidden").mkdir()
    (workspace / "hidden/ray.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(workspace / "hidden"))
    output = study(workspace, "--seeds", "1", status=1)
    assert output.endswith(
        "error: a study runs on Ray, which is not installed: make study, or pip install -e .[study]\n"
    )


@needs_ray
def test_a_trial_has_the_bits_of_the_stages(demo, tmp_path):
    output = tmp_path / "study.csv"
    command = [sys.executable, "src/tools/study.py", "--seeds", "199", "--output", output]
    subprocess.run(command, cwd=demo, check=True, capture_output=True)
    rows = pd.read_csv(output)
    for model in ("20d", "2d"):
        stage = pd.read_csv(demo / f"plots/{model}-losses.csv")
        assert (
            rows.loc[rows["model"] == model, stage.columns].to_numpy().tolist()
            == stage.to_numpy().tolist()
        )
    noise = json.loads((demo / "metrics/anomaly.json").read_text())["noise_kl"]
    assert rows.loc[rows["model"] == "20d", "noise_kl"].dropna().tolist() == [noise]


@needs_ray
def test_ray_on_this_machine_listens_on_the_loopback_alone(workspace):
    process = start(workspace, "--seeds", "0-3")
    wait_for_trials(workspace, 1)
    found = listening(process.pid)
    process.communicate()
    assert found
    assert found <= {"127.0.0.1", "::ffff:127.0.0.1"}


@needs_ray
def test_killed_and_started_again_it_ends_as_if_nothing_had_been(workspace):
    """kill -9 of a worker, then of the study with all that it started."""
    override_params(workspace / "params.yaml", {"train": {"epochs": 20}})
    process = start(workspace, "--seeds", "0-5")
    wait_for_trials(workspace, 1)
    workers(process.pid)[0].kill()
    wait_for_trials(workspace, 3)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait()
    with (workspace / "out.csv.partial").open("a") as file:
        file.write("abc,20d,def")  # as if killed while writing
    before = read_rows(workspace / "out.csv.partial")["trial"].nunique()
    assert not (workspace / "out.csv").exists()

    output = study(workspace, "--seeds", "0-5")
    assert f"6 trials, {before} of them finished before" in output
    assert output.count(" seed ") == 6 - before
    interrupted = (workspace / "out.csv").read_bytes()
    assert not (workspace / "out.csv.partial").exists()
    for path in workspace.glob("out*"):
        path.unlink()
    study(workspace, "--seeds", "0-5")
    assert (workspace / "out.csv").read_bytes() == interrupted
    assert "0 of them" not in study(workspace, "--seeds", "0-5")
    assert (workspace / "out.csv").read_bytes() == interrupted


@needs_ray
def test_a_trial_that_diverges_is_reported_and_the_others_end(workspace):
    output = study(workspace, "--seeds", "1,2", "--set", "train.learning_rate=0.001,10.0", status=1)
    summary = json.loads((workspace / "out.json").read_text())
    failed = [
        name for name, reason in summary["failures"].items() if "the KL has exploded" in reason
    ]
    assert failed == [f"20d, train.learning_rate=10.0, seed {seed}" for seed in (1, 2)]
    assert "error: 2 of 4 trials failed" in output
    assert set(pd.read_csv(workspace / "out.csv")["arm"]) == {"train.learning_rate=0.001"}


@needs_ray
def test_a_study_of_which_every_trial_fails_says_so_in_one_line(workspace):
    output = study(workspace, "--seeds", "1", "--set", "train.learning_rate=10.0", status=1)
    assert "error: 1 of 1 trials failed: 20d, train.learning_rate=10.0, seed 1: epoch 1" in output
    assert "Traceback" not in output


@needs_ray
def test_another_studys_results_are_not_overwritten(workspace):
    study(workspace, "--seeds", "1")
    kept = (workspace / "out.csv").read_bytes()
    assert "holds trials of another study" in study(workspace, "--seeds", "2", status=1)
    assert (workspace / "out.csv").read_bytes() == kept


@needs_ray
def test_mlflow_has_a_run_for_the_study_and_one_below_it_for_each_trial_once(workspace):
    override_params(workspace / "params.yaml", {"tracking": {"enabled": True}})
    study(workspace, "--seeds", "1-3")
    client = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    experiment = client.get_experiment_by_name("vae-mnist").experiment_id
    runs = client.search_runs([experiment])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in runs if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert sorted(run.data.params["seed"] for run in children) == ["1", "2", "3"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    # As if killed while the last one was logged.
    client.delete_run(children[0].info.run_id)
    client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
    (workspace / "out.csv").rename(workspace / "out.csv.partial")
    study(workspace, "--seeds", "1-3")
    finished = client.search_runs([experiment], "attributes.status = 'FINISHED'")
    assert len(finished) == 4
    points = client.get_metric_history(finished[0].info.run_id, "test_loss")
    assert len({point.step for point in points}) == len(points)


@needs_ray
def test_a_cluster_of_two_nodes_that_loses_one_ends_with_the_same_bits(workspace):
    from ray.cluster_utils import Cluster

    override_params(workspace / "params.yaml", {"train": {"epochs": 20}})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        process = start(workspace, "--seeds", "0-5", "--address", cluster.address)
        wait_for_trials(workspace, 1)
        deadline = time.monotonic() + 60
        while len(workers()) < 2:  # one on each node
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, output + errors
    finally:
        cluster.shutdown()
    on_cluster = (workspace / "out.csv").read_bytes()
    for path in workspace.glob("out*"):
        path.unlink()
    study(workspace, "--seeds", "0-5")
    assert (workspace / "out.csv").read_bytes() == on_cluster


@needs_ray
def test_ctrl_c_ends_it_with_one_line_and_keeps_what_is_finished(workspace):
    process = start(workspace, "--seeds", "0-30")
    wait_for_trials(workspace, 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert read_rows(workspace / "out.csv.partial")["trial"].nunique() >= 1


@needs_ray
def test_a_cluster_that_is_not_there_is_told_in_one_line(workspace):
    output = study(workspace, "--seeds", "1", "--address", "127.0.0.1:1", status=1)
    assert "error: cannot use the Ray cluster at 127.0.0.1:1" in output
