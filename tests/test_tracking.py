"""Tracking with a real MLflow store in SQLite."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT, serving
from mlflow_server import artifacts, client, runs, steps, write_training
from vae.cli import UserError
from vae.data import load_split
from vae.files import md5, read_json
from vae.identity import identity
from vae.inference import anomaly_scores, reconstruct
from vae.losses import load_losses
from vae.model import load_model
from vae.params import check_params, flat, training_params
from vae.rebuild.compare import hashes
from vae.tracking import sync
from vae.tracking.live import live_run
from vae.tracking.store import Store

TRACK = [sys.executable, "src/tools/track.py", "models", "metrics", "plots", "report.html"]
SRC = {"PYTHONPATH": str(ROOT / "src")}
OPEN_STORE = """
from pathlib import Path
from vae.params import check_params
from vae.tracking.store import Store
store = Store(check_params(Path("params.yaml")).tracking)
"""


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take two seconds to create."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def workspace(bare, empty_database):
    """A working folder with the committed parameters and a database."""
    shutil.copy(empty_database, bare)
    return bare


@pytest.fixture
def finished(demo, workspace, monkeypatch):
    """A finished pipeline as the working folder, with an empty store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow.db")
    monkeypatch.chdir(demo)
    return demo


def logged_models():
    return client().search_logged_models(["1"])


def train(params, name="20d"):
    """Write and log what the train stage does, for three epochs."""
    Path("train.safetensors").write_bytes(b"data")
    values = flat(training_params(params, name))
    with live_run(name, values, [Path("train.safetensors")], "0123456789ab") as log_epoch:
        for epoch in write_training(name, 3):
            log_epoch(epoch)


def refusal(params) -> str:
    """The line, without a password, in which a training is refused at its start."""
    with pytest.raises(UserError) as caught:
        train(params)
    message = str(caught.value)
    assert not re.search("\n|secret", message)
    assert len(message) < 600
    assert not Path("models").exists()
    return message


def test_a_training_is_one_finished_run_with_its_model(workspace, params, monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_STAGE", "train-20d")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hen")
    train(params)
    ((run,), (model,)) = runs(), logged_models()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "20d brave-hen")
    shown = {"epochs": "10", "learning_rate": "0.001", "seed": "199", "train.batch_size": "128"}
    shown |= {"model.hidden_sizes": "[400]", "model.latent_size": "20"}
    assert run.data.params == shown
    all_params = client().download_artifacts(run.info.run_id, "parameters.json", tmp_path)
    assert read_json(Path(all_params)) == flat(training_params(params, "20d"))
    assert run.data.tags["dvc.stage"] == "train-20d"
    assert run.data.tags["dvc.experiment"] == "brave-hen"
    history = client().get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 99.0), (2, 98.0), (3, 97.0)]
    terms = ("loss", "reconstruction", "kl")
    assert set(run.data.metrics) == {f"{s}_{term}" for s in ("train", "test") for term in terms}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest)) == ("train", 32)
    # Of the trained model and of each epoch, in two sizes.
    assert len(artifacts(run, "images")) == 2 * (1 + 3)

    assert (model.name, model.status) == ("20d brave-hen", "READY")
    assert model.source_run_id == run.info.run_id
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    files = client().list_logged_model_artifacts(model.model_id)
    assert "MLmodel" in [file.path for file in files]
    losses = {metric.key: (metric.value, metric.step) for metric in model.metrics}
    assert losses == {"train_loss": (97.0, 3), "test_loss": (99.0, 3)}


def test_a_copied_checkout_writes_into_its_own_artifacts(
    finished_demo, bare, tmp_path, monkeypatch
):
    original = shutil.copytree(finished_demo, tmp_path / "the original")
    monkeypatch.chdir(original)
    subprocess.run(TRACK, check=True)
    shutil.rmtree(original / "mlartifacts")  # what comes back would be written there
    (original / "mlartifacts").mkdir()
    copy = shutil.copytree(original, tmp_path / "a copy")
    monkeypatch.chdir(copy)
    subprocess.run(TRACK, check=True)
    assert not list((original / "mlartifacts").rglob("*.gif"))
    assert len(list((copy / "mlartifacts").rglob("manifold.gif"))) == 1
    assert len(runs()) == 2
    assert all(run.info.artifact_uri.startswith(copy.as_uri()) for run in runs())


def test_the_database_is_in_the_folder_whatever_its_name(workspace, params, monkeypatch):
    folder = workspace / "per%20cent ques?tion quo'te #ünï"
    folder.mkdir()
    shutil.copy(workspace / "params.yaml", folder)
    monkeypatch.chdir(folder)
    train(params)
    assert (folder / "mlflow.db").is_file()
    assert len(list((folder / "mlartifacts").rglob("20d.safetensors"))) == 1
    beside = {path.name for path in workspace.iterdir() if path.is_file()}
    assert beside == {"mlflow.db", "params.yaml"}


def test_names_and_parameters_show_what_differs_from_the_commit(workspace, params):
    for command in ("init", "add params.yaml", "commit -m parameters"):
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *user, *command.split()], check=True, stdout=subprocess.DEVNULL)
    train(params)
    changed = {"learning_rate": 0.003, "beta": 2.0}
    train(params.model_copy(update={"train": params.train.model_copy(update=changed), "seed": 7}))
    last, first = runs()
    assert first.info.run_name == "20d"
    assert last.info.run_name == "20d seed=7 learning_rate=0.003 beta=2.0"
    assert last.data.params["train.beta"] == "2.0"
    assert "train.beta" not in first.data.params
    names = sorted(model.name for model in logged_models())
    assert names == ["20d", "20d seed=7 learning_rate=0,003 beta=2,0"]


@pytest.mark.parametrize("experiment", ["", "x" * 300])
def test_a_second_run_of_a_name_has_a_number(workspace, params, monkeypatch, experiment):
    """Also if the first is deleted; PostgreSQL takes 250 characters."""
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    for _ in range(3):
        train(params)
        client().delete_run(runs()[-1].info.run_id)
    train(params, "2d")
    found = client().search_runs(["1"], run_view_type=ViewType.ALL)
    other, *names, first = [run.info.run_name for run in found]
    assert (other[:2], first[:3]) == ("2d", "20d")
    assert names == [f"{first} #3", f"{first} #2"]
    assert len(names[0]) <= 250


def test_a_run_without_a_logged_model_gets_one(workspace, params):
    """As after a kill between the last epoch and the model."""
    store = Store(params.tracking)
    run_id = store.client.create_run(store.experiment).info.run_id
    sync.log_epoch_losses(store, run_id, write_training("20d", 1)[0].row())
    for _ in range(2):
        sync.log_model(store, run_id, Path("models/20d.safetensors"))
    (model,) = logged_models()
    assert model.status == "READY"


def test_new_scores_are_logged_once_and_the_note_links_figures(workspace, params):
    train(params)
    figure = Path("plots/figure.png")
    figure.write_bytes(b"png")
    run_id = runs()[0].info.run_id
    for score in (62.0, 62.0, 63.0):
        sync.log_results(Store(params.tracking), run_id, [figure], {"noise_kl": score, "n": 1})
    ((run,), (model,)) = runs(), logged_models()
    assert {metric.key: metric.value for metric in model.metrics}["scores/noise_kl"] == 63.0
    assert len(steps(run, "scores/noise_kl")) == 2
    assert "scores/n" not in run.data.metrics
    page = f"#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/plots/figure.png"
    assert f"[figure.png]({page})" in run.data.tags["mlflow.note.content"]
    assert artifacts(run, "plots") == ["plots/figure.png"]


def test_a_run_that_has_no_model_gets_scores_all_the_same(workspace, params):
    """As one that an earlier version logged."""
    store = Store(params.tracking)
    run_id = store.client.create_run(store.experiment).info.run_id
    sync.log_results(store, run_id, [], {"kl": 2.0})
    assert runs()[0].data.metrics == {"scores/kl": 2.0}


def test_in_an_empty_store_each_run_is_made_once_from_files(finished):
    """By two processes at once, and then by two more."""
    before = hashes(finished / "dvc.lock")
    for _ in range(2):
        for process in [subprocess.Popen(TRACK) for _ in range(2)]:
            assert process.wait() == 0
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
            assert len(artifacts(run, "images")) == 2 * 11 * kinds
        assert sorted(model.name for model in logged_models()) == ["20d", "2d"]
        for metric in ("scores/noise_kl", "scores/roc_auc inverted images kl", "scores/kl"):
            assert metric in runs("tags.model = '20d'")[0].data.metrics
    for path in filter(Path.is_file, map(Path, before)):
        assert md5(path) == before[str(path)]


@pytest.mark.parametrize(
    "text", ["stages:\n  train-20d:\n    cmd: x\n", "stages:\n  trai", "stages:\n", "[]\n"]
)
def test_a_torn_dvc_lock_ends_in_one_line(bare, text):
    Path("dvc.lock").write_text(text)
    Path("a.csv").write_text("epoch\n")
    with pytest.raises(UserError, match=r"a\.csv is not the one of dvc\.lock; run `dvc repro`"):
        sync.locked_params("20d", [Path("a.csv")])


def test_which_of_several_runs_a_model_belongs_to(finished):
    """The latest that finished with these weights, else one that was killed, which is completed."""
    params = check_params(Path("params.yaml"))
    store = Store(params.tracking)
    splits = [Path(f"data/binarized/{split}.safetensors") for split in ("train", "test")]
    data = [md5(path) for path in splits]

    def start(name: str, **tags: str) -> str:
        values = flat(training_params(params, name))
        tags = {"identity": identity(values, data)} | tags
        run_id = sync.start_run(store, name, values, splits, tags)
        for row in load_losses(Path(f"plots/{name}-losses.csv")).head(3).to_dict("records"):
            sync.log_epoch_losses(store, run_id, row)
        return run_id

    killed = start("2d", process=f"{os.uname().nodename}:{2**22 + 1}")
    other = start("2d", identity="0123456789ab")
    ours = start("20d")
    sync.sync_training(store, ours, "20d", Path("models"), Path("plots"))
    store.client.set_terminated(start("20d"), "KILLED")
    gpu = start("20d")
    store.client.set_tag(gpu, sync.MODEL_TAG, "other weights")
    store.client.set_terminated(gpu, "FINISHED")
    subprocess.run(TRACK, check=True)
    found = {run.info.run_id: run for run in runs()}
    assert len(found) == 5
    assert [key for key in found if "scores/kl" in found[key].data.metrics] == [ours, killed]
    assert found[killed].info.status == "FINISHED"
    assert steps(found[killed]) == steps(found[killed], "test_loss") == list(range(1, 11))
    assert steps(found[other]) == [1, 2, 3]


def test_a_file_that_dvc_lock_does_not_have_is_named(finished):
    store = Store(check_params(Path("params.yaml")).tracking)

    def expect(name: str) -> None:
        with pytest.raises(UserError, match=f"{name} is not the one of dvc.lock; run"):
            sync.find_run(store, "20d", Path("models"), Path("plots"))

    Path("plots/20d-losses.csv").unlink()
    expect("plots/20d-losses.csv")
    Path("models/20d.safetensors").write_bytes(b"another")
    expect("models/20d.safetensors")
    Path("data/binarized/test.safetensors").write_bytes(b"another")
    expect("data/binarized")


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_an_interrupted_training_does_not_stay_running(workspace, error, status):
    with pytest.raises(error), live_run("20d", {}, [], "0123456789ab"):
        raise error
    (run,) = runs()
    assert run.info.status == status
    assert sync.MODEL_TAG not in run.data.tags


def test_turned_off_nothing_is_written(bare, params):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("enabled: true", "enabled: false"))
    train(params)
    names = sorted(path.name for path in bare.iterdir())
    assert names == ["models", "params.yaml", "plots", "train.safetensors"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9?token=secret", "cannot use the MLflow store http://127.0.0.1:9 ("),
        ("http://[::1", "cannot use the MLflow store"),
        ("postgresql://user:secret/x@host/db", "should be like http://HOST:5000"),
        ("http://user:secret#x@host:5000/", "should be like http://HOST:5000"),
        ("http://user:secret/x@host:5000/", "should be like http://HOST:5000"),
        ("mlruns", "should be like http://HOST:5000"),
    ],
)
def test_a_wrong_address_ends_in_one_line(bare, params, monkeypatch, uri, message):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert message in refusal(params)


@pytest.mark.parametrize("inside", [False, True])
def test_a_relative_database_starts_at_the_repositorys_root(
    bare, params, monkeypatch, empty_database, inside
):
    """Also in the temporary folder where DVC runs an experiment."""
    root = bare / "repository" if inside else bare
    if inside:
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
    assert not Path("mlflow.db").exists()


def test_a_kill_while_tables_are_made_leaves_no_database(bare, params):
    process = subprocess.Popen([sys.executable, "-c", OPEN_STORE], env=SRC)
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


def test_four_first_uses_at_once_make_one_database(bare):
    command = [sys.executable, "-c", f"{OPEN_STORE}store.client.create_run(store.experiment)"]
    processes = [subprocess.Popen(command, env=SRC) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert len(runs()) == 4


@pytest.mark.parametrize(
    ("content", "statement", "reason"),
    [
        (b"junk" * 999, "", "file is not a database"),
        # By a killed `mlflow ui`, which makes the tables under the final name.
        (b"", "CREATE TABLE experiments (experiment_id INTEGER)", ".*"),
        (None, "BEGIN EXCLUSIVE", "database is locked"),
    ],
)
def test_an_unusable_database_ends_in_one_line(workspace, params, content, statement, reason):
    database = Path("mlflow.db")
    if content is not None:
        database.write_bytes(content)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.executescript(statement)
        before = md5(database)
        assert re.search(rf"mlflow\.db \({reason}\); fix it, name", refusal(params))
    assert md5(database) == before


def test_a_deleted_experiments_error_names_the_command_that_restores_it(workspace, params):
    train(params)
    client().delete_experiment("1")
    shutil.rmtree("models")
    (command,) = re.findall("experiment vae-mnist is deleted; `mlflow (.*?)`", refusal(params))
    subprocess.run([sys.executable, "-m", "mlflow", *command.split()], check=True)
    train(params)
    assert len(runs()) == 2


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3://nowhere/x", "s3://nowhere/x: No module named 'boto"),
        ("sftp://user:secret@nowhere/x", "sftp://nowhere/x: No module named"),
        ("other://nowhere", "Could not find a registered artifact repository"),
    ],
)
def test_an_unusable_bucket_is_named_before_a_run_starts(workspace, params, place, reason):
    client().create_experiment("vae-mnist", place)
    assert re.search(f"its files go to .*{reason}", refusal(params))
    assert runs() == []


def test_runs_of_a_server_on_the_same_database_stay_usable(workspace, params):
    """`mlflow ui` sets no folder for an experiment, and has its files in mlartifacts/1."""
    number = client().create_experiment("vae-mnist", "mlflow-artifacts:/1")
    before = client().create_run(number)
    train(params)
    place = workspace / "mlartifacts/1"
    (place / before.info.run_id / "artifacts").mkdir(parents=True)
    (place / before.info.run_id / "artifacts/figure.png").write_bytes(b"png")
    assert artifacts(before, "") == ["figure.png"]
    assert len(list(place.rglob("artifacts/parameters.json"))) == 1
    (model,) = logged_models()
    assert model.artifact_location.startswith(place.as_uri())


@pytest.mark.parametrize(
    ("page", "text", "reason"),
    [
        ("version", "2.22.1", "the server has MLflow 2.22.1; 3 or later is needed"),
        ("index.html", "not a page for programs", "error code 404"),
        ("api/2.0/mlflow/experiments/get-by-name", "<p>log in</p> " * 99, "Response body: '<p>log"),
    ],
)
def test_a_server_other_than_mlflow_3_is_an_error(bare, params, monkeypatch, page, text, reason):
    (bare / page).parent.mkdir(parents=True, exist_ok=True)
    (bare / page).write_text(text)
    with serving(bare) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        assert reason in refusal(params)


def test_make_ui_names_a_port_in_use(workspace):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, ROOT / "src/tools/ui.py", "--port", port]
        result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: port {port} is in use; name another with PORT=\n"


def link_packages(folder: Path, *names: str) -> None:
    """Link installed packages, and those that they require, into a folder."""
    missing, found = list(names), set()
    while missing:
        package = distribution(missing.pop())
        found.add(canonicalize_name(package.name))
        for top in {file.parts[0] for file in package.files if file.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))
        for needed in map(Requirement, package.requires or []):
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                missing += {canonicalize_name(needed.name)} - found - set(missing)


def test_a_logged_model_needs_only_mlflow_and_its_requirements(finished_demo, tmp_path):
    """It predicts the bits of the stages, without this repository."""
    script = (
        "import sys, mlflow, numpy\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "numpy.savez('found.npz', **model.predict(numpy.load('images.npy')))\n"
    )
    store = f"sqlite:///{finished_demo}/mlflow.db"
    images = load_split(finished_demo / "data/binarized", "test").images[:100]
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "packages").mkdir()
    for logged in MlflowClient(store).search_logged_models(["1"]):
        place = finished_demo / f"mlartifacts/models/{logged.model_id}/artifacts"
        needed = re.findall(r"^[\w.-]+", (place / "requirements.txt").read_text(), re.MULTILINE)
        link_packages(tmp_path / "packages", "mlflow", *needed)
        command = [sys.executable, "-S", "-c", script, store, f"models:/{logged.model_id}"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}/packages"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        model = load_model(finished_demo / f"models/{logged.name}.safetensors")
        expected = {"probabilities": reconstruct(model, images), **anomaly_scores(model, images)}
        found = np.load(tmp_path / "found.npz")
        assert sorted(found) == sorted(expected)
        for key in expected:
            assert found[key].tobytes() == expected[key].tobytes()
