"""Studies, with stand-ins for trials and with real Ray processes (`make test-all`)."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import demo as demo_script
import study as study_script
from conftest import ROOT, listening
from vae.cli import UserError
from vae.data import load_split
from vae.identity import identity
from vae.params import MODELS, check_params, flat
from vae.rebuild.build import override_params
from vae.reproduction.intervals import read_rows
from vae.study.cluster import run_on_node
from vae.study.trials import append_rows, plan, run_trial

SEEDS, EPOCHS = "0-3", 40  # trials of seconds, so that a kill interrupts one

needs_ray = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode != 0,
    reason="needs Ray: make test-all",
)


def fill(folder: Path, digits: Path, epochs: int) -> Path:
    """Give a folder scikit-learn's digits and parameters for short trials."""
    shutil.copytree(digits, folder / "data/binarized")
    shutil.copytree(ROOT / "data/published", folder / "data/published")
    shutil.copy(ROOT / "params.yaml", folder)
    for changes in (demo_script.OVERRIDES, {"train": {"epochs": epochs}}):
        override_params(folder / "params.yaml", changes)
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
def undisturbed(tmp_path_factory, digits):
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


def workers(of: int | None = None) -> list[psutil.Process]:
    """Ray's processes with a trial, of this study or of any."""
    processes = psutil.Process(of).children(recursive=True) if of else psutil.process_iter()
    return [process for process in processes if process.name().startswith("ray::run_")]


def row(trial: str, epoch: int, noise: float | None) -> dict:
    losses = {"train_loss": 90.5, "test_loss": 91.5}
    names = {"trial": trial, "model": "20d", "arm": "defaults", "seed": 1}
    return {**names, "epoch": epoch, **losses, "noise_kl": noise}


def test_only_whole_trials_of_a_cut_table_are_read(tmp_path):
    path = tmp_path / "table.csv"
    append_rows(path, [row("1e5", 1, None), row("1e5", 2, 61.25)])
    append_rows(path, [row("b", 1, None), row("b", 2, 60.75)])
    whole = path.read_text()
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        expected = ["1e5"] if cut >= whole.index("b,20d") else []
        assert list(read_rows(path)["trial"].unique()) == expected, whole[:cut]
    path.write_text(whole)
    assert read_rows(path)["noise_kl"].dropna().tolist() == [61.25, 60.75]


@pytest.fixture
def main(workspace, monkeypatch):
    """Run a study's `main` in this process, with these arguments."""

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
        (["--set", "train.learning_rate"], "is not KEY=VALUE,VALUE"),
        (["--models", "3d"], "invalid choice: '3d' (choose from '20d', '2d')"),
        (["--set", "train.learning_rat=1"], "did you mean learning_rate?"),
        (["--set", "trai.epochs=1"], "no training of 20d or 2d reads it"),
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


def plan_in(folder, monkeypatch, seeds, grid, models=("20d",)):
    monkeypatch.chdir(folder)
    return plan(models, seeds, grid, ["data"])


# Values of parameters that trainings read; some of them are equal.
VALUES = {
    "train.learning_rate": [0.001, 0.003, 1e-3],
    "train.beta": [1.0, 1, 0.5],
    "train.device": ["cpu", "cuda"],
    "figures.interval": [10, 1],
    "train-20d.hidden_sizes": [[400], [16]],
    "train-2d.preceded_by": [None],
}


@st.composite
def requests(draw):
    """What a study is asked for: models, seeds and a grid of up to three keys."""
    models = draw(st.sampled_from([["20d"], ["2d"], ["20d", "2d"], ["2d", "20d"]]))
    seeds = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    groups = ("figures", "train", *(f"train-{model}" for model in models))
    allowed = [key for key in VALUES if key.partition(".")[0] in groups]
    keys = draw(st.lists(st.sampled_from(allowed), max_size=3, unique=True))
    some = {key: st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=2) for key in keys}
    return models, seeds, draw(st.fixed_dictionaries(some))


@settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.lists(requests(), min_size=1, max_size=3))
def test_different_parameters_have_different_labels(workspace, monkeypatch, studies):
    labels, trials = {}, {}
    for models, seeds, grid in studies:
        for trial in plan_in(workspace, monkeypatch, seeds, grid, models):
            assert labels.setdefault(trial.fingerprint, str(trial)) == str(trial)
            assert trials.setdefault(str(trial), trial.fingerprint) == trial.fingerprint


@settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck])
@given(requests())
def test_a_trial_runs_with_the_parameters_of_its_key(workspace, monkeypatch, asked):
    """Whatever the process has run before."""
    ran = []

    def prepare(seed, figures, settings, architecture, *splits):
        ran.append({"seed": seed, "figures": figures, "train": settings, "model": architecture})
        raise KeyboardInterrupt

    monkeypatch.setattr("vae.study.trials.prepare", prepare)
    models, seeds, grid = asked
    trials = plan_in(workspace, monkeypatch, seeds, grid, models)
    for trial in trials:
        with pytest.raises(KeyboardInterrupt):
            run_trial(trial, None, None)
    assert [identity(flat(params), ["data"]) for params in ran] == [t.fingerprint for t in trials]


def test_a_process_that_trained_by_torch_gives_exact_bits_again(workspace, monkeypatch):
    (trial,) = plan_in(workspace, monkeypatch, [0], {"train.epochs": [1]})
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


def test_a_node_with_another_pytorch_is_refused(workspace, monkeypatch):
    (trial,) = plan_in(workspace, monkeypatch, [0], {})
    with pytest.raises(UserError, match=r"has torch 2\..*, and the study torch 1\.0"):
        run_on_node("1.0", trial, None, None)


def cheap_trials(order, ends_after):
    """Stand-ins for Ray and training: trials in some order, and Ctrl-C after `ends_after`."""

    def run(trials, splits, *resources):
        for number, trial in enumerate(order.sample(trials, len(trials))):
            if number == ends_after:
                raise KeyboardInterrupt
            loss = 80 + int(trial.fingerprint, 16) % 7
            if loss == 80:
                yield trial, "it failed"
                continue
            epochs = [row(trial.fingerprint, epoch, None) for epoch in (1, 2)]
            for each in epochs:
                names = {"model": trial.model, "arm": trial.arm, "seed": trial.seed}
                each |= {**names, "train_loss": loss + 1 / each["epoch"], "test_loss": loss}
            epochs[-1]["noise_kl"] = loss / 2
            yield trial, epochs

    return run


# An earlier study: the default learning rate, how many trials it ended, and if on another machine.
STUDIES = st.tuples(st.sampled_from([0.001, 0.003]), st.none() | st.integers(0, 9), st.booleans())


@settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.lists(STUDIES, max_size=3), st.randoms(use_true_random=False))
@example([(0.001, None, True), (0.001, None, False)], random.Random(0))
def test_whatever_ran_before_a_study_ends_with_the_same_results(
    main, workspace, monkeypatch, before, order
):
    """Its table and summary; the figure takes a second."""
    monkeypatch.setattr(study_script, "study_bands", lambda *tables: None)
    monkeypatch.setattr(study_script, "save_figure", lambda path, _: path.touch())

    def run(rate=0.001, ends_after=None, elsewhere=False):
        override_params(workspace / "params.yaml", {"train": {"learning_rate": rate}})
        monkeypatch.setattr(study_script, "run_trials", cheap_trials(order, ends_after))
        output = "other.csv" if elsewhere else "out.csv"
        with contextlib.suppress(KeyboardInterrupt, UserError):
            main("--seeds", "0-3", "--set", "train.learning_rate=0.001,0.003", "--output", output)

    def remove():
        for path in [*workspace.glob("out*"), *workspace.glob("other*")]:
            path.unlink()

    found = []
    for history in ([], before):
        remove()
        for earlier in history:
            run(*earlier)
        if (workspace / "other.csv").exists():  # the rows of another machine's study
            append_rows(workspace / "out.csv", read_rows(workspace / "other.csv"))
        run()
        found.append([(workspace / f"out.{kind}").read_bytes() for kind in ("csv", "json")])
    assert found[0] == found[1]


@needs_ray
def test_a_trial_has_the_bits_of_the_stages(demo, tmp_path):
    output = tmp_path / "study.csv"
    command = [sys.executable, "src/tools/study.py", "--seeds", "199", "--output", output]
    subprocess.run(command, cwd=demo, check=True, capture_output=True)
    rows = pd.read_csv(output)
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
    workers(process.pid)[0].kill()
    wait_for_trials(longer, 2)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
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
    assert (longer / "out.csv").read_bytes() == undisturbed


@needs_ray
def test_a_trial_that_diverges_is_reported_and_the_others_end(workspace):
    output = study(workspace, "--seeds", "1,2", "--set", "train.learning_rate=0.001,10.0", status=1)
    summary = json.loads((workspace / "out.json").read_text())
    failed = [
        name for name, reason in summary["failures"].items() if "the KL has exploded" in reason
    ]
    assert failed == [f"20d, train.learning_rate=10.0, seed {seed}" for seed in (1, 2)]
    assert "error: 2 of 4 trials failed" in output
    assert set(pd.read_csv(workspace / "out.csv")["arm"]) == {"defaults"}


def test_a_study_whose_trials_all_fail_writes_no_table(main, workspace, monkeypatch):
    def failing(trials, *_):
        yield from ((trial, "epoch 1: it has exploded") for trial in trials)

    monkeypatch.setattr(study_script, "run_trials", failing)
    with pytest.raises(UserError, match=r"^1 of 1 trials failed: 20d, defaults, seed 1: epoch 1"):
        main("--models", "20d", "--seeds", "1")
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
        while len(workers()) < 2:  # one on each node
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, output + errors
    finally:
        cluster.shutdown()
    assert (longer / "out.csv").read_bytes() == undisturbed


@needs_ray
def test_ray_listens_on_loopback_alone_and_ctrl_c_keeps_trials(workspace):
    process = start(workspace, "--seeds", "0-30")
    wait_for_trials(workspace, 1)
    addresses = listening(process.pid)
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert read_rows(workspace / "out.csv")["trial"].nunique() >= 1


@needs_ray
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request", b"SSH-2.0-OpenSSH_9.2", b"", None])
def test_an_address_without_ray_ends_a_study_in_seconds(workspace, answer):
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.sendall(answer)
        with contextlib.suppress(ConnectionError):
            while connection.recv(99):  # until the other side closes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        port = 1 if answer is None else listener.getsockname()[1]
        address = f"127.0.0.1:{port}"
        begun = time.monotonic()
        output = study(workspace, "--seeds", "1", "--address", address, status=1)
    reasons = {None: ".*refused", b"": "timed out"}
    reason = reasons.get(answer, "the server there is not Ray")
    assert re.search(rf"error: cannot use the Ray cluster at {address} \({reason}\)", output)
    assert time.monotonic() - begun < 60  # with the start of Python and Ray on a busy machine
