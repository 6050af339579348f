"""Studies, with stand-ins for trials and with real Ray processes (`make test-all`)."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import demo as demo_script
import study as study_script
from conftest import ROOT, call, listening, serving
from vae.cli import UserError
from vae.data import load_split
from vae.identity import identity
from vae.params import MODELS, check_params, flat
from vae.rebuild.build import override_params
from vae.reproduction.intervals import read_rows
from vae.study.cluster import run_on_node
from vae.study.trials import append_rows, plan, run_trial

SEEDS, EPOCHS = "0-3", 40  # trials of seconds, so that a kill interrupts one

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs Ray: make test-all")


def fill(folder: Path, digits: Path, epochs: int) -> Path:
    """Give a folder scikit-learn's digits and parameters for short trials."""
    shutil.copytree(digits, folder / "data/binarized")
    shutil.copytree(ROOT / "data/published", folder / "data/published")
    shutil.copy(ROOT / "params.yaml", folder)
    override_params(folder / "params.yaml", demo_script.OVERRIDES)
    override_params(folder / "params.yaml", {"train": {"epochs": epochs}})
    return folder


@pytest.fixture
def workspace(tmp_path, digits):
    """A folder for trials of 3 epochs."""
    return fill(tmp_path, digits, 3)


@pytest.fixture
def longer(tmp_path, digits):
    """A folder for trials long enough to be killed."""
    return fill(tmp_path, digits, EPOCHS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits) -> bytes:
    """The table of an uninterrupted study of `longer` trials."""
    folder = fill(tmp_path_factory.mktemp("undisturbed"), digits, EPOCHS)
    study(folder, "--seeds", SEEDS)
    return (folder / "out.csv").read_bytes()


def start(folder: Path, *options: str) -> subprocess.Popen:
    """Start a study of the 20-d model."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, ROOT / "src/tools/study.py", "--models", "20d"]
    command += ["--output", "out.csv", *options]
    form = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **form)


def study(folder: Path, *options: str, status: int = 0) -> str:
    """Run a study that ends with this status; return its output."""
    process = start(folder, *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, output + errors
    return output + errors


def wait_for_trials(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while read_rows(folder / "out.csv")["trial"].nunique() < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(processes) -> list[psutil.Process]:
    """Ray's workers among processes that train."""
    return [process for process in processes if process.name().startswith("ray::run_")]


def row(trial: str, epoch: int, noise: float | None = None) -> dict:
    names = {"trial": trial, "model": "20d", "arm": "defaults", "seed": 1}
    return {**names, "epoch": epoch, "train_loss": 90.5, "test_loss": 91.5, "noise_kl": noise}


def test_only_whole_trials_of_a_cut_table_are_read(tmp_path):
    path = tmp_path / "table.csv"
    append_rows(path, [row("1e5", 1), row("1e5", 2, 61.25)])
    append_rows(path, [row("b", 1), row("b", 2, 60.75)])
    whole = path.read_text()
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        expected = ["1e5"] if cut >= whole.index("b,20d") else []
        assert list(read_rows(path)["trial"].unique()) == expected, whole[:cut]
    path.write_text(whole)
    assert read_rows(path)["noise_kl"].dropna().tolist() == [61.25, 60.75]


@pytest.fixture
def main(workspace, monkeypatch):
    """Run a study's `main` in this process, with these arguments, in `workspace`."""

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["study.py", "--output", "out.csv", *options])
        study_script.main()

    monkeypatch.chdir(workspace)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # A study sets these for Ray.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "three"], "argument --seeds"),
        (["--seeds", "5-1"], "has no seeds between"),
        (["--set", "seed=1,2"], "seeds by --seeds"),
        (["--models", "20d", "--set", "train-2d.latent_size=3"], "no training of 20d reads it"),
        (["--set", "train.epochs=0"], "train.epochs is 0"),
    ],
)
def test_a_mistake_ends_a_study_before_anything_starts(main, workspace, capsys, options, message):
    with pytest.raises((SystemExit, UserError)) as raised:
        main(*options)
    assert message in str(raised.value) + capsys.readouterr().err
    assert not list(workspace.glob("out*"))


def test_without_ray_the_error_says_how_to_install_it(main, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray, which is not installed: make study, or pip install"):
        main("--seeds", "1")


def test_another_studys_results_are_not_overwritten(main, workspace):
    output = workspace / "out.csv"
    append_rows(output, [row("abc", 1, 61.25)])
    kept = output.read_bytes()
    with pytest.raises(UserError, match="holds trials of another study"):
        main("--seeds", "2")
    with FileLock(workspace / "out.csv.lock"), pytest.raises(UserError, match="in use by another"):
        main("--seeds", "2")
    assert output.read_bytes() == kept


def test_the_committed_table_has_the_committed_parameters_and_data(monkeypatch):
    """Otherwise `make study` trains all 40 trials again."""
    monkeypatch.chdir(ROOT)
    # Checksums of data/binarized/train.safetensors and test.safetensors.
    data = ["693b87fc6535ef267e109ac878487ad8", "084b17b2873c7f51bc7c84b6b2444cd4"]
    planned = {trial[:3]: trial.fingerprint for trial in plan(MODELS, range(20), {}, data)}
    table = read_rows(ROOT / "studies/seeds.csv")
    keys = zip(table["model"], table["arm"], table["seed"], strict=True)
    assert dict(zip(keys, table["trial"], strict=True)) == planned


# Values of parameters that trainings read; some of them are equal.
VALUES = {
    "train.learning_rate": [0.001, 0.003, 1e-3],
    "train.beta": [1.0, 1, 0.5],
    "train.device": ["cpu", "cuda"],
    "figures.interval": [10, 1],
    "train-20d.hidden_sizes": [[400], [16]],
    "train-2d.preceded_by": [None],
}
SOME = {key: st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=2) for key in VALUES}
GRIDS = st.fixed_dictionaries({}, optional=SOME)


@settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.lists(GRIDS, min_size=1, max_size=3))
def test_label_and_key_name_what_a_trial_runs_with(main, monkeypatch, grids):
    """Whatever the process has run before."""
    ran, labels, keys = [], {}, {}

    def prepare(seed, figures, settings, architecture, *splits):
        ran.append({"seed": seed, "figures": figures, "train": settings, "model": architecture})
        raise KeyboardInterrupt

    monkeypatch.setattr("vae.study.trials.prepare", prepare)
    for grid in grids:
        for trial in plan(MODELS, [0, 1], grid, ["data"]):
            assert labels.setdefault(trial.fingerprint, str(trial)) == str(trial)
            assert keys.setdefault(str(trial), trial.fingerprint) == trial.fingerprint
            with pytest.raises(KeyboardInterrupt):
                run_trial(trial, None, None)
            assert identity(flat(ran.pop()), ["data"]) == trial.fingerprint


def test_a_process_that_trained_by_torch_gives_exact_bits_again(main):
    (trial,) = plan(["20d"], [0], {"train.epochs": [1]}, ["data"])
    splits = [load_split(Path("data/binarized"), name) for name in ("train", "test")]
    before = run_trial(trial, *splits)
    other = check_params(Path("params.yaml"), {"train.arithmetic": "torch"})
    try:
        assert run_trial(trial._replace(params=other), *splits) != before
    finally:
        again = run_trial(trial, *splits)
        torch.use_deterministic_algorithms(False)
        torch.set_flush_denormal(False)
    assert again == before


def test_a_node_with_another_pytorch_is_refused():
    with pytest.raises(UserError, match=r"has torch 2\..*, and the study torch 1\.0"):
        run_on_node("1.0", None, None, None)


def cheap_trials(number, step=1):
    """A stand-in for the training of so many trials, then Ctrl-C; the trials of seed 2 fail."""

    def run(trials, *_):
        for trial in trials[::step][:number]:
            loss = int(trial.fingerprint, 16) % 1000 / 10 + 80
            names = {"model": trial.model, "arm": trial.arm, "seed": trial.seed, "test_loss": loss}
            rows = [row(trial.fingerprint, epoch) | names for epoch in (1, 2)]
            rows[-1]["noise_kl"] = loss / 2
            yield trial, "it failed" if trial.seed == 2 else rows
        if number is not None:
            raise KeyboardInterrupt

    return run


@pytest.mark.parametrize(
    ("seeds", "default_rate", "number", "twice"),
    [
        ("0-3", 0.001, 9, False),
        ("1,3", 0.001, None, False),
        ("0-3", 0.003, None, False),
        ("0-3", 0.001, None, True),  # another machine has finished the same trials
    ],
)
def test_a_study_has_the_same_results_whatever_ran_before(
    main, workspace, monkeypatch, seeds, default_rate, number, twice
):
    """Its table and summary; the figure takes a second."""
    monkeypatch.setattr(study_script, "study_bands", lambda *tables: None)
    monkeypatch.setattr(study_script, "save_figure", lambda path, _: path.touch())
    output = workspace / "out.csv"

    def run(seeds, trials):
        monkeypatch.setattr(study_script, "run_trials", trials)
        with contextlib.suppress(KeyboardInterrupt, UserError):
            main("--seeds", seeds, "--set", "train.learning_rate=0.001,0.003")

    run("0-3", cheap_trials(None))
    files = [output, output.with_suffix(".json")]
    expected = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    override_params(workspace / "params.yaml", {"train": {"learning_rate": default_rate}})
    run(seeds, cheap_trials(number, step=-1))
    override_params(workspace / "params.yaml", {"train": {"learning_rate": 0.001}})
    if twice:
        append_rows(output, read_rows(output))
    run("0-3", cheap_trials(None))
    assert [path.read_bytes() for path in files] == expected


@needs_ray
def test_a_trial_has_the_bits_of_the_stages(demo):
    call(demo, "python", "src/tools/study.py", "--seeds", "199", "--output", "study.csv")
    rows = pd.read_csv(demo / "study.csv")
    for model in ("20d", "2d"):
        stage = pd.read_csv(demo / f"plots/{model}-losses.csv")
        ours = rows.loc[rows["model"] == model, stage.columns]
        assert ours.to_numpy().tolist() == stage.to_numpy().tolist()
    noise = json.loads((demo / "metrics/anomaly.json").read_text())["noise_kl"]
    assert rows.loc[rows["model"] == "20d", "noise_kl"].dropna().tolist() == [noise]


@needs_ray
def test_a_killed_study_resumes_with_the_same_results(longer, undisturbed):
    """After kill -9 of a worker, then of the study with all its processes."""
    process = start(longer, "--seeds", SEEDS)
    wait_for_trials(longer, 1)
    (worker, *_) = running(psutil.Process(process.pid).children(recursive=True))
    worker.kill()
    wait_for_trials(longer, 2)
    for member in [*psutil.Process(process.pid).children(recursive=True), process]:
        member.kill()
    process.wait()
    with (longer / "out.csv").open("a") as file:
        file.write("abc,20d,def")  # as if killed while writing
    before = read_rows(longer / "out.csv")["trial"].nunique()
    assert not (longer / "out.json").exists()

    output = study(longer, "--seeds", SEEDS)
    assert f"4 trials, {before} of them finished before" in output
    assert output.count(" seed ") == 4 - before
    assert (longer / "out.csv").read_bytes() == undisturbed
    assert "4 of them" in study(longer, "--seeds", SEEDS)


@needs_ray
def test_a_trial_that_diverges_is_reported_and_the_others_end(workspace):
    output = study(workspace, "--seeds", "1,2", "--set", "train.learning_rate=0.001,10.0", status=1)
    reasons = json.loads((workspace / "out.json").read_text())["failures"]
    assert [*reasons] == [f"20d, train.learning_rate=10.0, seed {seed}" for seed in (1, 2)]
    assert all("the KL has exploded" in reason for reason in reasons.values())
    assert "error: 2 of 4 trials failed" in output
    assert set(pd.read_csv(workspace / "out.csv")["arm"]) == {"defaults"}


def test_a_study_whose_trials_all_fail_writes_no_table(main, workspace, monkeypatch):
    monkeypatch.setattr(study_script, "run_trials", cheap_trials(None))
    with pytest.raises(UserError, match=r"^1 of 1 trials failed: 20d, defaults, seed 2: it failed"):
        main("--models", "20d", "--seeds", "2")
    assert [path.name for path in workspace.glob("out*")] == ["out.csv.lock"]


@needs_ray
def test_a_cluster_that_loses_a_node_gives_the_same_bits(longer, undisturbed):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        process = start(longer, "--seeds", SEEDS, "--address", cluster.address)
        wait_for_trials(longer, 1)
        deadline = time.monotonic() + 60
        while len(running(psutil.process_iter())) < 2:  # one on each node
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, output + errors
    finally:
        cluster.shutdown()
    assert (longer / "out.csv").read_bytes() == undisturbed


@needs_ray
def test_ray_listens_on_loopback_and_ctrl_c_keeps_trials(workspace):
    process = start(workspace, "--seeds", "0-30")
    wait_for_trials(workspace, 1)
    addresses = listening(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert read_rows(workspace / "out.csv")["trial"].nunique() >= 1


@needs_ray
def test_an_address_without_ray_ends_a_study_in_seconds(workspace):
    with serving(workspace) as http, socket.create_server(("127.0.0.1", 0)) as silent:
        reasons = {http: "the server there is not Ray", silent.getsockname()[1]: "timed out"}
        for port, reason in {**reasons, 1: ".*refused"}.items():
            place = f"127.0.0.1:{port}"
            begun = time.monotonic()
            output = study(workspace, "--seeds", "1", "--address", place, status=1)
            assert time.monotonic() - begun < 60  # with the start of Ray on a busy machine
            assert re.search(rf"error: cannot use the Ray cluster at {place} \({reason}\)", output)
