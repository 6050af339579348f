"""Against a real MLflow store, in SQLite."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from conftest import ROOT
from vae.errors import UserError
from vae.tracking import MODEL_TAG, track_results, track_training
from vae.training import Epoch, Losses


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with the committed parameters, as the current one, and no tracking settings from outside."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    Path("train.safetensors").write_bytes(b"data")
    return tmp_path


def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def runs(query: str = ""):
    experiment = client().get_experiment_by_name("vae-mnist")
    return client().search_runs([experiment.experiment_id], query)


def train(params, name="20d", weights=b"weights"):
    """What the train stage tells its tracker."""
    values = {"seed": params.seed, "train": params.train, "model": params.train_20d}
    with track_training(name, values, [Path("train.safetensors")]) as run:
        for number in range(1, 4):
            run.log_epoch(Epoch(number, Losses(80.0 - number, 20.0), Losses(81.0 - number, 21.0)))
        path = Path(f"{name}.safetensors")
        path.write_bytes(weights)
        run.finish(path, [])
    return path


def test_a_training_is_one_finished_run_with_its_parameters_losses_data_and_model(
    workspace, params, monkeypatch
):
    monkeypatch.setenv("DVC_STAGE", "train-20d")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hen")
    train(params)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "20d brave-hen"
    assert run.data.params["seed"] == "199"
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.params["model.hidden_sizes"] == "[400]"
    assert run.data.tags["dvc.stage"] == "train-20d"
    assert run.data.tags["dvc.experiment"] == "brave-hen"
    history = client().get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 99.0), (2, 98.0), (3, 97.0)]
    assert set(run.data.metrics) == set(Epoch(1, Losses(0, 0), Losses(0, 0)).row()) - {"epoch"}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest)) == ("train", 32)
    assert [f.path for f in client().list_artifacts(run.info.run_id, "model")] == ["model/20d.safetensors"]


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
    assert "with seed=7, epochs=2, learning_rate=0.003." in last.data.tags["mlflow.note.content"]


def test_results_land_on_the_latest_run_that_trained_this_very_model(workspace, params):
    train(params, weights=b"other")
    train(params)
    weights = train(params)
    figure = Path("plots/figure.png")
    figure.parent.mkdir()
    figure.write_bytes(b"png")
    track_results(weights, [figure], {"noise_kl": 62.0})
    last, *others = sorted(runs(), key=lambda run: -run.info.start_time)
    assert last.data.metrics["noise_kl"] == 62.0
    place = f"#/experiments/{last.info.experiment_id}/runs/{last.info.run_id}/artifacts/plots/figure.png"
    assert f"[figure.png]({place})" in last.data.tags["mlflow.note.content"]
    assert [f.path for f in client().list_artifacts(last.info.run_id, "plots")] == ["plots/figure.png"]
    for run in others:
        assert "noise_kl" not in run.data.metrics
        assert client().list_artifacts(run.info.run_id, "plots") == []


def test_results_of_a_model_that_no_run_trained_are_left_out_with_a_word(workspace, params, capsys):
    train(params)
    Path("restored.safetensors").write_bytes(b"from a cache")
    track_results(Path("restored.safetensors"), [], {"noise_kl": 62.0})
    assert "no MLflow run trained" in capsys.readouterr().out
    assert len(runs()) == 1


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_breaks_off_is_not_left_running(workspace, params, error, status):
    with (
        pytest.raises(error),
        track_training("20d", {"train": params.train}, [Path("train.safetensors")]),
    ):
        raise error
    (run,) = runs()
    assert run.info.status == status
    assert MODEL_TAG not in run.data.tags


def test_turned_off_nothing_is_written(workspace, params):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("enabled: true", "enabled: false"))
    weights = train(params)
    track_results(weights, [], {"noise_kl": 62.0})
    assert sorted(path.name for path in workspace.iterdir()) == [
        "20d.safetensors",
        "params.yaml",
        "train.safetensors",
    ]


def test_the_environments_tracking_uri_goes_first(workspace, params, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/elsewhere/runs.db")
    train(params)
    assert not Path("mlflow.db").exists()
    elsewhere = MlflowClient(f"sqlite:///{workspace}/elsewhere/runs.db")
    experiment = elsewhere.get_experiment_by_name("vae-mnist")
    assert len(elsewhere.search_runs([experiment.experiment_id])) == 1


def test_a_store_that_cannot_be_used_is_told_in_one_line_without_its_password(workspace, params, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://user:secret@host/store")
    with pytest.raises(UserError, match="cannot use the MLflow store host/store") as caught:
        train(params)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_four_first_uses_at_once_make_one_database(workspace):
    script = (
        "from pathlib import Path; from vae.tracking import track_training\n"
        "with track_training('20d', {}, [Path('train.safetensors')]): pass"
    )
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "src")}) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert len(runs()) == 4
