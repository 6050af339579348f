"""Against a real MLflow store, in SQLite."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from conftest import ROOT, save_frames
from vae.cli import UserError
from vae.data import load_split
from vae.files import md5, read_json, write_csv
from vae.identity import identity
from vae.inference import anomaly_scores, reconstruct
from vae.losses import load_losses
from vae.model import load_model
from vae.params import check_params, flat, training_params
from vae.rebuild.compare import hashes
from vae.tracking.live import live_run
from vae.tracking.store import Store
from vae.tracking.sync import (
    MODEL_TAG,
    locked_params,
    log_model,
    log_points,
    log_results,
    run_of,
    start_training,
)
from vae.training import Epoch, Losses

# How often four processes open a new database at once; ROUNDS=20 by hand.
ROUNDS = int(os.environ.get("ROUNDS", "1"))
TRACK = [sys.executable, "src/tools/track.py", "models", "metrics", "plots", "report.html"]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take two seconds to make."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A folder with the committed parameters, as the current one; no settings from outside."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    Path("train.safetensors").write_bytes(b"data")
    return tmp_path


@pytest.fixture
def workspace(bare, empty_database):
    """The same, with a database."""
    shutil.copy(empty_database, bare)
    return bare


@pytest.fixture
def finished(demo, empty_database, tmp_path, monkeypatch):
    """The folder of a finished pipeline, as the current one, with an empty store."""
    shutil.copy(empty_database, tmp_path / "runs.db")
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.chdir(demo)
    return demo


def client() -> MlflowClient:
    return MlflowClient(
        os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd()}/mlflow.db"
    )


def runs(query: str = ""):
    experiment = client().get_experiment_by_name("vae-mnist")
    return client().search_runs([experiment.experiment_id], query)


def logged_models():
    experiment = client().get_experiment_by_name("vae-mnist")
    return client().search_logged_models([experiment.experiment_id])


def artifact(run, name: str):
    """What a run's JSON file has."""
    with TemporaryDirectory() as folder:
        return read_json(Path(client().download_artifacts(run.info.run_id, name, folder)))


def steps(run, key: str = "train_loss") -> list[int]:
    return [point.step for point in client().get_metric_history(run.info.run_id, key)]


def train(params, name="20d", known_as="0123456789ab"):
    """What the train stage writes and logs."""
    values = flat(training_params(params, name))
    epochs = [Epoch(n, Losses(80.0 - n, 20.0), Losses(81.0 - n, 21.0)) for n in range(1, 4)]
    with live_run(name, values, [Path("train.safetensors")], known_as) as log_epoch:
        for epoch in epochs:
            log_epoch(epoch)
        Path("models").mkdir(exist_ok=True)
        Path(f"models/{name}.safetensors").write_bytes(b"weights")
        Path(f"models/{name}.json").write_text("{}")
        save_frames(Path(f"models/{name}-epochs.arrow"), 3)
        write_csv(Path(f"plots/{name}-losses.csv"), pd.DataFrame([e.row() for e in epochs]))


def test_a_training_is_one_finished_run_with_its_parameters_losses_data_and_model(
    workspace, params, monkeypatch
):
    monkeypatch.setenv("DVC_STAGE", "train-20d")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hen")
    train(params)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "20d brave-hen"
    assert run.data.params == {
        "epochs": "10",
        "learning_rate": "0.001",
        "model.hidden_sizes": "[400]",
        "model.latent_size": "20",
        "seed": "199",
        "train.batch_size": "128",
    }
    assert artifact(run, "parameters.json") == flat(training_params(params, "20d"))
    assert run.data.tags["dvc.stage"] == "train-20d"
    assert run.data.tags["dvc.experiment"] == "brave-hen"
    history = client().get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 99.0), (2, 98.0), (3, 97.0)]
    terms = [
        f"{split}_{term}"
        for split in ("train", "test")
        for term in ("loss", "reconstruction", "kl")
    ]
    assert sorted(run.data.metrics) == sorted(terms)
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest)) == ("train", 32)
    (model,) = logged_models()
    assert (model.name, model.status) == ("20d brave-hen", "READY")
    assert model.source_run_id == run.info.run_id
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    files = client().list_logged_model_artifacts(model.model_id)
    assert "MLmodel" in [file.path for file in files]
    losses = {metric.key: (metric.value, metric.step) for metric in model.metrics}
    assert losses == {"train_loss": (97.0, 3), "test_loss": (99.0, 3)}
    assert steps(run, "test_loss") == [1, 2, 3]


def test_a_copied_checkout_writes_into_its_own_artifacts_and_not_into_the_originals(
    finished_demo, tmp_path, monkeypatch
):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    original = shutil.copytree(finished_demo, tmp_path / "the original")
    monkeypatch.chdir(original)
    subprocess.run(TRACK, check=True)
    shutil.rmtree(tmp_path / "the original/mlartifacts")  # what comes back would be written there
    (original / "mlartifacts").mkdir()
    copy = shutil.copytree(original, tmp_path / "a copy")
    monkeypatch.chdir(copy)
    subprocess.run(TRACK, check=True)
    assert not list((original / "mlartifacts").rglob("*.gif"))
    assert len(list((copy / "mlartifacts").rglob("manifold.gif"))) == 1
    assert len(runs()) == 2
    assert all(run.info.artifact_uri.startswith(copy.as_uri()) for run in runs())


@pytest.mark.parametrize("name", ["per%20cent", "ques?tion", "quo'te #ünï"])
def test_the_database_and_the_files_are_in_the_folder_whatever_its_name(
    workspace, params, monkeypatch, name
):
    folder = workspace / name
    folder.mkdir()
    for file in ("params.yaml", "train.safetensors"):
        shutil.copy(workspace / file, folder)
    monkeypatch.chdir(folder)
    train(params)
    assert (folder / "mlflow.db").is_file()
    assert len(list((folder / "mlartifacts").rglob("20d.safetensors"))) == 1
    beside = {path.name for path in workspace.iterdir() if path.is_file()}
    assert beside == {"mlflow.db", "params.yaml", "train.safetensors"}


def test_pictures_have_the_names_that_mlflows_own_image_logging_gives_them(workspace, params):
    """On which the image grid relies; tests/services looks at it in a browser."""
    train(params)
    (run,) = runs()
    ours = [Path(file.path).name for file in client().list_artifacts(run.info.run_id, "images")]
    assert len(ours) == 2 * (1 + 3)
    picture = np.zeros((28, 140), dtype=np.uint8)
    client().log_image(
        run.info.run_id, picture, key="pictures/reconstructions", step=4, timestamp=4
    )
    all_names = [
        Path(file.path).name for file in client().list_artifacts(run.info.run_id, "images")
    ]
    for name in set(all_names) - set(ours):
        prefix, _, rest = name.rpartition("timestamp+4+")
        assert f"{prefix.replace('+4+', '+3+')}timestamp+3+epoch-3{rest[36:]}" in ours
    assert (
        run.data.tags["mlflow.loggedImages"]
        == client().get_run(run.info.run_id).data.tags["mlflow.loggedImages"]
    )


def test_runs_that_differ_from_the_committed_parameters_say_so_in_their_names(workspace, params):
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "params.yaml"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "--quiet", "-m", "parameters"], check=True)
    train(params)
    changed = {"learning_rate": 0.003, "epochs": 2}
    train(params.model_copy(update={"train": params.train.model_copy(update=changed), "seed": 7}))
    last, first = runs()
    assert first.info.run_name == "20d"
    assert last.info.run_name == "20d seed=7 epochs=2 learning_rate=0.003"
    names = sorted(model.name for model in logged_models())
    assert names == ["20d", "20d seed=7 epochs=2 learning_rate=0,003"]


def test_a_second_run_of_the_same_name_has_a_number_also_when_the_first_is_deleted(
    workspace, params
):
    for _ in range(3):
        train(params)
        client().delete_run(runs()[-1].info.run_id)
    train(params, "2d")
    names = [run.info.run_name for run in client().search_runs(["1"], run_view_type=ViewType.ALL)]
    assert names == ["2d", "20d #3", "20d #2", "20d"]


def test_a_long_name_is_cut_to_what_postgresql_takes_and_still_has_a_number(
    workspace, params, monkeypatch
):
    monkeypatch.setenv("DVC_EXP_NAME", "x" * 300)
    for _ in range(2):
        train(params)
    second, first = (run.info.run_name for run in runs())
    assert first.startswith("20d xxx")
    assert second == f"{first} #2"
    assert len(second) <= 250


def test_a_parameter_that_is_not_as_committed_is_one_of_the_runs_parameters(
    workspace, params, monkeypatch
):
    committed = {"train.beta": "1.0"}
    monkeypatch.setattr("vae.tracking.sync.differences", lambda values, name: committed)
    train(params)
    (run,) = runs()
    assert run.data.params["train.beta"] == "1.0"
    assert "train.device" not in run.data.params
    assert run.info.run_name == "20d beta=1.0"


def test_a_run_without_a_logged_model_gets_it_once(workspace, params):
    """As a run that was made before there were any, or was cut short."""
    store = Store(params.tracking)
    run_id = store.client.create_run(store.experiment).info.run_id
    log_points(store, run_id, {"epoch": 1, "train_loss": 2.0, "test_loss": 3.0})
    for path in (Path("20d.safetensors"), Path("20d.json")):
        path.write_text("{}")
    found = {log_model(store, run_id, Path("20d.safetensors")) for _ in range(2)}
    (model,) = logged_models()
    assert found == {model.model_id}
    assert model.status == "READY"


def test_a_new_score_is_logged_once_and_the_note_links_the_figures(workspace, params):
    train(params)
    figure = Path("plots/figure.png")
    figure.write_bytes(b"png")
    (run,), (model,) = runs(), logged_models()
    for score in (62.0, 62.0, 63.0):
        log_results(
            Store(params.tracking), run.info.run_id, model.model_id, [figure], {"noise_kl": score}
        )
    (model,) = logged_models()
    assert {metric.key: metric.value for metric in model.metrics}["scores/noise_kl"] == 63.0
    points = client().get_metric_history(run.info.run_id, "scores/noise_kl")
    assert [point.value for point in points] == [62.0, 63.0]
    place = (
        f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/plots/figure.png"
    )
    assert (
        f"[figure.png]({place})"
        in client().get_run(run.info.run_id).data.tags["mlflow.note.content"]
    )
    assert [f.path for f in client().list_artifacts(run.info.run_id, "plots")] == [
        "plots/figure.png"
    ]


def test_in_an_empty_store_runs_are_made_from_the_files_once(finished):
    before = hashes(finished / "dvc.lock")
    for _ in range(2):
        subprocess.run(TRACK, check=True)
        assert sorted(run.data.tags["model"] for run in runs()) == ["20d", "2d"]
        for run in runs():
            assert run.info.status == "FINISHED"
            assert run.data.tags["logged.from"] == "files"
            assert run.data.params["train.batch_size"] == "32"
            assert steps(run) == steps(run, "test_kl") == list(range(1, 11))
            assert steps(run, "scores/test_log_likelihood") == [0]
            digests = {data.dataset.name: data.dataset.digest for data in run.inputs.dataset_inputs}
            splits = ("train", "test")
            assert digests == {n: md5(Path(f"data/binarized/{n}.safetensors")) for n in splits}
            kinds = 2 if run.data.tags["model"] == "2d" else 1
            assert len(client().list_artifacts(run.info.run_id, "images")) == 2 * 11 * kinds
        assert sorted(model.name for model in logged_models()) == ["20d", "2d"]
        for metric in ("scores/noise_kl", "scores/roc_auc inverted images kl", "scores/kl"):
            assert metric in runs("tags.model = '20d'")[0].data.metrics
        chosen = {"fails_below", "threshold_percentile", "noise_images", "most_information"}
        for run in runs():
            assert not {f"scores/{key}" for key in chosen} & set(run.data.metrics)
    for path in (path for path in before if Path(path).is_file()):
        assert md5(Path(path)) == before[path]


def test_two_at_once_make_each_run_once(finished):
    for process in [subprocess.Popen(TRACK) for _ in range(2)]:
        assert process.wait() == 0
    assert sorted(run.data.tags["model"] for run in runs()) == ["20d", "2d"]


@pytest.mark.parametrize(
    "text", ["stages:\n  train-20d:\n    cmd: x\n", "stages:\n  trai", "stages:\n", "[]\n"]
)
def test_a_torn_dvc_lock_ends_in_one_line(bare, text):
    Path("dvc.lock").write_text(text)
    Path("a.csv").write_text("epoch\n")
    with pytest.raises(UserError, match=r"dvc\.lock knows no training with a\.csv as it is"):
        locked_params("20d", [Path("a.csv")])


def test_a_run_that_was_cut_short_is_completed_and_one_of_another_identity_is_left_alone(finished):
    params = check_params(Path("params.yaml"))
    values = flat(training_params(params, "2d"))
    splits = [Path(f"data/binarized/{split}.safetensors") for split in ("train", "test")]
    known_as = identity(values, [md5(path) for path in splits])
    store = Store(params.tracking)
    process = {"process": f"{os.uname().nodename}:{2**22 + 1}"}
    same, other = (
        start_training(store, "2d", values, splits, {**process, "identity": tag})
        for tag in (known_as, "0123456789ab")
    )
    for run_id in (same, other):
        for row in load_losses(Path("plots/2d-losses.csv")).head(3).to_dict("records"):
            log_points(store, run_id, row)
    subprocess.run(TRACK, check=True)
    found = {run.info.run_id: run for run in runs() if run.data.tags["model"] == "2d"}
    assert set(found) == {same, other}
    assert found[same].info.status == "FINISHED"
    assert steps(found[same]) == steps(found[same], "test_loss") == list(range(1, 11))
    assert "scores/test_log_likelihood" in found[same].data.metrics
    assert "logged.from" not in found[same].data.tags
    assert found[other].info.status == "KILLED"
    assert steps(found[other]) == [1, 2, 3]


def test_a_finished_run_goes_before_one_cut_short_and_another_processors_is_left_alone(finished):
    params = check_params(Path("params.yaml"))
    values = flat(training_params(params, "20d"))
    splits = [Path(f"data/binarized/{split}.safetensors") for split in ("train", "test")]
    known_as = {"identity": identity(values, [md5(path) for path in splits])}
    store = Store(params.tracking)

    def ended(status: str, tags: dict[str, str]) -> str:
        run_id = start_training(store, "20d", values, splits, {**known_as, **tags})
        store.client.set_terminated(run_id, status)
        return run_id

    ours = ended("FINISHED", {MODEL_TAG: md5(Path("models/20d.safetensors"))})
    ended("KILLED", {})
    ended("FINISHED", {MODEL_TAG: "of other bits"})
    assert run_of(store, "20d", Path("models"), Path("plots")) == ours


@pytest.mark.parametrize(
    "name", ["models/20d.safetensors", "plots/20d-losses.csv", "data/binarized/test.safetensors"]
)
def test_a_file_that_dvc_lock_does_not_know_is_named(finished, name):
    shown = "data/binarized" if name.startswith("data") else name
    kept = Path(name).read_bytes()
    Path(name).unlink()
    try:
        for content in (None, b"another"):
            if content:
                Path(name).write_bytes(content)
            store = Store(check_params(Path("params.yaml")).tracking)
            with pytest.raises(
                UserError, match=f"dvc.lock knows no training with {shown} as it is; run"
            ):
                run_of(store, "20d", Path("models"), Path("plots"))
    finally:
        Path(name).unlink()
        Path(name).write_bytes(kept)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_training_that_breaks_off_is_not_left_running(workspace, params, error, status):
    data = [Path("train.safetensors")]
    with pytest.raises(error), live_run("20d", {}, data, "0123456789ab"):
        raise error
    (run,) = runs()
    assert run.info.status == status
    assert MODEL_TAG not in run.data.tags


def test_turned_off_nothing_is_written(bare, params):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("enabled: true", "enabled: false"))
    train(params)
    names = sorted(path.name for path in bare.iterdir())
    assert names == ["models", "params.yaml", "plots", "train.safetensors"]


def test_the_environments_tracking_uri_goes_first(bare, params, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{bare}/elsewhere/runs.db")
    train(params)
    assert not Path("mlflow.db").exists()
    elsewhere = MlflowClient(f"sqlite:///{bare}/elsewhere/runs.db")
    experiment = elsewhere.get_experiment_by_name("vae-mnist")
    assert len(elsewhere.search_runs([experiment.experiment_id])) == 1


def test_a_store_that_cannot_be_used_ends_in_one_line_without_its_password(
    bare, params, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@nowhere.invalid")
    with pytest.raises(
        UserError, match=r"cannot use the MLflow store http://nowhere\.invalid "
    ) as caught:
        train(params)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://user:secret/x@host/db", "MLFLOW_TRACKING_URI is no valid address"),
        ("http://user:sec#ret@host:5000/", "MLFLOW_TRACKING_URI is no valid address"),
        ("nonsense://user:secret@host/store", "MLFLOW_TRACKING_URI is no valid address"),
        ("mlruns", "MLFLOW_TRACKING_URI is no valid address"),
        ("http://user:secret/x@host:5000/", "MLFLOW_TRACKING_URI is no valid address"),
        ("http://[::1", "MLFLOW_TRACKING_URI is no valid address"),
        ("mysql://user:secret@localhost/db", "MLFLOW_TRACKING_URI is no valid address"),
        ("http://127.0.0.1:9?token=secret", "cannot use the MLflow store http://127.0.0.1:9 ("),
    ],
)
def test_an_address_that_cannot_be_used_ends_in_one_line_without_its_password(
    bare, params, monkeypatch, uri, message
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        train(params)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("of", ["the current folder", "the repository"])
def test_a_relative_database_is_taken_from_the_repositorys_root_else_from_the_current_folder(
    bare, params, monkeypatch, empty_database, of
):
    root = bare
    if of == "the repository":
        root = bare / "repository"
        monkeypatch.setenv("DVC_ROOT", str(root))
    (root / "below").mkdir(parents=True)
    shutil.copy(empty_database, root / "below/runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///below/runs.db")
    train(params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/below/runs.db")
    (run,) = runs()
    assert run.info.artifact_uri.startswith((root / "below/mlartifacts").as_uri())
    found = sorted(path.name for path in (root / "below").iterdir())
    assert found == ["mlartifacts", "runs.db", "runs.db.lock"]


def test_killed_while_it_makes_its_tables_a_database_is_made_by_the_next_use(bare, params):
    script = (
        "from vae.params import *; from vae.tracking.store import *\n"
        "Store(*read_params('tracking'))"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "src")})
    begun = Path(".tmp-mlflow.db")
    while not (begun.exists() and begun.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert begun.exists()
    assert not Path("mlflow.db").exists()
    train(params)
    assert [run.info.status for run in runs()] == ["FINISHED"]
    assert not list(Path().glob(".tmp-*"))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_four_first_uses_at_once_make_one_database(bare, number):
    script = (
        "from vae.params import *; from vae.tracking.store import *\n"
        "store = Store(*read_params('tracking'))\n"
        "store.client.create_run(store.experiment)"
    )
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "src")}) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert len(runs()) == 4


def test_a_damaged_database_ends_in_one_line_and_is_left_as_it_is(bare, params):
    damaged = os.urandom(10_000)
    Path("mlflow.db").write_bytes(damaged)
    with pytest.raises(
        UserError, match=r"mlflow\.db \(file is not a database\)\. Correct that, name another"
    ):
        train(params)
    assert Path("mlflow.db").read_bytes() == damaged


def test_a_database_of_which_a_killed_mlflow_ui_made_half_ends_in_one_line(bare, params):
    """MLflow's own start makes the tables one by one under the final name."""
    with closing(sqlite3.connect("mlflow.db")) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with pytest.raises(
        UserError, match=r"mlflow\.db \(.*\)\. Correct that, name another"
    ) as caught:
        train(params)
    assert "\n" not in str(caught.value)
    Path("mlflow.db").rename("half.db")
    train(params)
    assert [run.info.status for run in runs()] == ["FINISHED"]


def test_a_locked_database_ends_the_stage_in_one_line_and_dvc_restores_its_outputs(
    finished, tmp_path
):
    before = hashes(finished / "dvc.lock")
    dvc = [sys.executable, "-m", "dvc"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = subprocess.run(
            [*dvc, "repro", "--force", "--no-run-cache", "--single-item", "train-20d"],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
        )
    assert result.returncode
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "runs.db (database is locked). Correct that" in line
    assert "Traceback" not in result.stderr
    assert "epoch 1" not in result.stdout
    subprocess.run([*dvc, "checkout", "--quiet"], check=True)
    assert hashes(finished / "dvc.lock") == before
    for path in ("models/20d.safetensors", "models/20d-frames.arrow"):
        assert md5(Path(path)) == before[path]


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(workspace, params):
    train(params)
    client().delete_experiment("1")
    with pytest.raises(UserError, match="the experiment vae-mnist is deleted") as caught:
        train(params)
    (command,) = re.findall("`mlflow (.*?)`", str(caught.value))
    subprocess.run([sys.executable, "-m", "mlflow", *command.split()], check=True)
    train(params)
    assert len(runs()) == 2


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3://nowhere/x", "s3://nowhere/x: No module named 'boto"),
        ("gs://nowhere/x", "gs://nowhere/x: No module named 'google"),
        ("sftp://user:secret@nowhere/x", "sftp://nowhere/x: No module named"),
        ("wasbs://box@nowhere/x", "wasbs://nowhere/x: No module named 'azure'"),
        ("other://nowhere", "Could not find a registered artifact repository"),
    ],
)
def test_files_in_a_bucket_that_cannot_be_used_are_told_before_a_run_starts(
    workspace, params, place, reason
):
    client().create_experiment("vae-mnist", place)
    with pytest.raises(UserError, match=f"its files go to .*{reason}") as caught:
        train(params)
    assert "secret" not in str(caught.value)
    assert runs() == []


def test_runs_of_a_server_on_the_same_database_go_on_without_it(workspace, params):
    """As `make ui` has it: it gives experiments no folder, and has the files in mlartifacts/1."""
    number = client().create_experiment("vae-mnist", "mlflow-artifacts:/1")
    before = client().create_run(number).info.run_id
    train(params)
    place = workspace / "mlartifacts/1"
    (place / before / "artifacts").mkdir(parents=True)
    (place / before / "artifacts/figure.png").write_bytes(b"png")
    assert [file.path for file in client().list_artifacts(before)] == ["figure.png"]
    assert len(list(place.rglob("artifacts/parameters.json"))) == 1
    (model,) = logged_models()
    assert model.artifact_location.startswith(place.as_uri())


@pytest.fixture
def answering(monkeypatch):
    """A web server that answers everything with the text that is set."""

    class Handler(BaseHTTPRequestHandler):
        text, status = "", 200

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(self.text.encode())

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield Handler
        server.shutdown()


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("2.22.1", 200, "the server has MLflow 2.22.1; 3 or later is needed"),
        ("<html>" + 99 * "<p>not a page for programs</p> ", 404, "error code 404"),
        ("<html>" + 99 * "<p>please log in</p> ", 200, "Response body: '<html>"),
    ],
)
def test_a_server_that_is_not_of_mlflow_3_is_told_in_one_short_line(
    bare, params, answering, text, status, reason
):
    answering.text, answering.status = text, status
    with pytest.raises(UserError, match=reason) as caught:
        train(params)
    assert len(str(caught.value)) < 600


def ui(*options: str, status: int = 0) -> str:
    """What `make ui` prints that opens no pages."""
    command = [sys.executable, ROOT / "src/tools/ui.py", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_make_ui_at_a_port_that_is_taken_ends_in_one_line(workspace):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        output = ui("--port", str(port), status=1)
    assert output.startswith(f"error: cannot listen on port {port} (")
    assert output.count("\n") == 1


def test_a_logged_model_predicts_in_a_fresh_process_what_the_stages_compute(
    finished_demo, tmp_path
):
    script = (
        "import sys, mlflow, numpy\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "images = numpy.load('images.npy')\n"
        "numpy.savez('found.npz', **model.predict(images))\n"
        "assert sys.modules['vae'].__file__.startswith(sys.argv[3])\n"
    )
    store = f"sqlite:///{finished_demo}/mlflow.db"
    models = MlflowClient(store).search_logged_models(["1"])
    images = load_split(finished_demo / "data/binarized", "test").images[:100]
    np.save(tmp_path / "images.npy", images)
    for name in ("20d", "2d"):
        (logged,) = (model for model in models if model.name == name)
        command = [sys.executable, "-c", script, store, f"models:/{logged.model_id}"]
        place = finished_demo / f"mlartifacts/models/{logged.model_id}/artifacts/code"
        subprocess.run([*command, place], cwd=tmp_path, check=True)
        model = load_model(finished_demo / f"models/{name}.safetensors")
        expected = {"probabilities": reconstruct(model, images), **anomaly_scores(model, images)}
        found = np.load(tmp_path / "found.npz")
        assert sorted(found) == sorted(expected)
        for key in expected:
            assert found[key].tobytes() == expected[key].tobytes()
