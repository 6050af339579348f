"""dvc.yaml against the code, and the whole pipeline on scikit-learn's digits."""

import ast
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from vae.rebuild.compare import hashes
from vae.report import text
from vae.reproduction.published import compare_losses, load_published
from vae.reproduction.verdicts import judge, load_intervals

import imageio.v3 as imageio
import pandas as pd
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

SRC = ROOT / "src"
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
LOCK = YAML(typ="safe").load(ROOT / "dvc.lock")
STAGES = PIPELINE["stages"]

# DESIGN's table of outputs, which others rely on.
OUTPUTS = [
    "data/raw/MNIST/raw/train-images-idx3-ubyte.gz",
    "data/binarized/train.safetensors",
    "data/binarized/test.safetensors",
    "models/20d.safetensors",
    "models/20d.json",
    "models/2d.safetensors",
    "models/2d.json",
    "models/20d-frames.npz",
    "models/2d-frames.npz",
    "metrics/20d.json",
    "metrics/2d.json",
    "plots/20d-losses.csv",
    "plots/2d-losses.csv",
    "plots/losses.png",
    "plots/originals.png",
    "plots/reconstruction.gif",
    "plots/reconstruction-early.gif",
    "plots/manifold.gif",
    "plots/manifold-early.gif",
    "plots/manifold.png",
    "plots/manifold-regions.png",
    "plots/latent.png",
    "metrics/anomaly.json",
    "metrics/likelihood.json",
    "plots/kl-divergence.png",
    "plots/noise.png",
    "plots/anomalies.png",
    "metrics/reproduction.json",
    "metrics/summary.json",
    "plots/reproduction.png",
    "report.html",
]


def script_of(stage: str) -> Path:
    return ROOT / STAGES[stage]["cmd"].split()[1]


def imports(path: Path) -> set[Path]:
    """The files of src that a file of src imports, but for those that only type checkers read, and the
    templates beside it that it names."""
    if path.suffix != ".py":
        return set()
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if "TYPE_CHECKING" not in ast.unparse(node).split(":")[0]
    ]
    names, beside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and str(node.value).endswith((".html", ".md")):
            beside.add(path.with_name(node.value))
    files = {SRC / f"{name.replace('.', '/')}.py" for name in names}
    files |= {SRC / name.split(".")[0] / "__init__.py" for name in names}
    return {file for file in files | beside if file.exists()}


def all_imports(path: Path) -> set[Path]:
    found, new = set(), {path}
    while new:
        found |= new
        new = {file for path in new for file in imports(path)} - found
    return found


def groups_read(stage: str) -> set[str]:
    """The parameter groups that a stage's script names in its call of read_params."""
    for node in ast.walk(ast.parse(script_of(stage).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "read_params":
            if isinstance(node.args[0], ast.Starred):
                return set(
                    getattr(importlib.import_module(script_of(stage).stem), node.args[0].value.id)
                )
            # train.py names its own group as f"train-{name}".
            return {stage if isinstance(a, ast.JoinedStr) else a.value for a in node.args}
    return set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_sources_it_imports_and_the_groups_it_reads_and_no_others(stage):
    declared = {ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    assert declared == all_imports(script_of(stage))
    assert set(STAGES[stage]["params"]) == groups_read(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does_in_one_sentence(stage):
    assert STAGES[stage]["desc"].endswith(".")
    assert STAGES[stage]["desc"].count(".") == 1


def test_a_stage_script_is_at_most_150_lines():
    for path in SRC.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150, path


@pytest.mark.parametrize("stage", LOCK["stages"])
def test_dvc_lock_belongs_to_the_committed_code_parameters_and_results(stage):
    locked = LOCK["stages"][stage]
    assert locked["cmd"] == STAGES[stage]["cmd"]
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    for group, value in locked["params"]["params.yaml"].items():
        assert value == params[group]
    of_git = {dep["path"]: dep for dep in locked["deps"] if dep["path"].startswith("src/")}
    kept = [out for out in STAGES[stage]["outs"] if isinstance(out, dict)]
    uncached = {
        path for out in kept for path, options in out.items() if options.get("cache") is False
    }
    of_git |= {out["path"]: out for out in locked["outs"] if out["path"] in uncached}
    assert of_git
    for path, entry in of_git.items():
        assert hashlib.md5(committed(path)).hexdigest() == entry["md5"], path


def committed(path: str) -> bytes:
    """A file as it is staged or committed, so that an experiment in the working tree is not looked at."""
    return subprocess.run(
        ["git", "show", f":{path}"], cwd=ROOT, capture_output=True, check=True
    ).stdout


def test_the_readmes_figures_are_those_that_dvc_lock_names():
    names = {out["path"]: out["md5"] for stage in LOCK["stages"].values() for out in stage["outs"]}
    shown = sorted((ROOT / "docs/figures").iterdir())
    assert shown
    for path in shown:
        assert hashlib.md5(path.read_bytes()).hexdigest() == names[f"plots/{path.name}"], path


@pytest.mark.parametrize("model", ["20d", "2d"])
def test_the_readmes_loss_tables_are_the_committed_results(model):
    ours = {
        name: pd.read_csv(io.BytesIO(committed(f"plots/{name}-losses.csv")))
        for name in ("20d", "2d")
    }
    values = compare_losses(ours, load_published(ROOT / "data/published"))
    values = judge(values, load_intervals(ROOT / "studies/seeds.csv"))
    assert text.loss_table(values[values["model"] == model]) in (ROOT / "README.md").read_text()


def test_the_readmes_verdicts_are_those_of_the_committed_results():
    table = pd.DataFrame(json.loads(committed("metrics/reproduction.json"))["published"])
    kinds = text.verdict_table(table.sort_values(["model", "source"])).splitlines()
    readme = (ROOT / "README.md").read_text()
    assert len(kinds) == 7
    for line in kinds:
        assert line in readme


def dvc(folder: Path, *arguments: str) -> str:
    """The output of a DVC command that ends well, run in the demo's folder as the demo runs it."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_the_pipeline_makes_every_output_and_leaves_no_temporary_file(demo):
    for name in OUTPUTS:
        assert (demo / name).stat().st_size > 0, name
    assert not list(demo.rglob(".tmp-*"))


def test_figures_have_the_posts_sizes_and_paces(demo):
    for name, shape, milliseconds in (
        ("reconstruction", (224, 560), 50 * 95),
        ("reconstruction-early", (224, 560), 100 * 150),
        ("manifold", (560, 560), 50 * 95),
        ("manifold-early", (560, 560), 100 * 100),
    ):
        frames = imageio.imread(demo / f"plots/{name}.gif", index=None)
        assert frames.shape[1:3] == shape
        assert gif_duration(demo / f"plots/{name}.gif") == milliseconds
    assert imageio.imread(demo / "plots/manifold.png").shape == (560, 560)


def gif_duration(path: Path) -> int:
    from PIL import Image, ImageSequence

    with Image.open(path) as gif:
        return sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))


def test_loss_tables_hold_every_epoch_split_into_its_terms(demo):
    for model in ("20d", "2d"):
        table = pd.read_csv(demo / f"plots/{model}-losses.csv")
        assert table["epoch"].tolist() == list(range(1, 11))
        for split in ("train", "test"):
            terms = table[f"{split}_reconstruction"] + table[f"{split}_kl"]
            assert terms.tolist() == table[f"{split}_loss"].tolist()
        assert json.loads((demo / f"metrics/{model}.json").read_text()) == table.iloc[-1].to_dict()


def test_mlflow_has_two_runs_with_ten_points_of_each_loss_all_parameters_and_the_figures(demo):
    client = MlflowClient(f"sqlite:///{demo}/mlflow.db")
    experiment = client.get_experiment_by_name("vae-mnist")
    runs = {run.data.tags["model"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"20d", "2d"}
    for model, run in runs.items():
        for loss in ("train_loss", "test_loss", "train_kl", "test_reconstruction"):
            points = client.get_metric_history(run.info.run_id, loss)
            assert [point.step for point in points] == list(range(1, 11))
        assert run.data.params["train.batch_size"] == "32"
        assert run.data.params["model.latent_size"] == model.removesuffix("d")
        figures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "plots")}
        assert {"20d": "reconstruction.gif", "2d": "manifold.gif"}[model] in figures
        assert "scores/test_log_likelihood" in run.data.metrics
        assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert "scores/noise_kl" in runs["20d"].data.metrics


def test_a_second_repro_does_nothing(demo):
    assert stages_run(dvc(demo, "repro")) == []


def test_an_anomaly_parameter_reruns_anomaly_and_report_only(demo):
    change(demo, "noise_images: 1000", "noise_images: 500")
    assert stages_run(dvc(demo, "repro")) == ["anomaly", "report"]


def test_a_layer_of_the_20_d_model_does_not_retrain_the_2_d_one(demo):
    change(demo, "train-20d:\n  hidden_sizes: [400]", "train-20d:\n  hidden_sizes: [50]")
    assert stages_run(dvc(demo, "repro")) == [
        "train-20d",
        "visualize",
        "anomaly",
        "likelihood",
        "report",
    ]


def test_without_tracking_every_output_is_the_same_to_the_byte(demo):
    before = hashes(demo / "dvc.lock")
    change(demo, "enabled: true", "enabled: false")
    (demo / "mlflow.db").rename(demo / "kept.db")
    ran = stages_run(dvc(demo, "repro", "--force", "--no-run-cache"))
    assert ran == list(STAGES)
    assert hashes(demo / "dvc.lock") == before
    assert not (demo / "mlflow.db").exists()


def test_a_mistake_in_the_parameters_ends_in_one_line_and_loses_nothing(demo):
    before = hashes(demo / "dvc.lock")
    change(demo, "learning_rate:", "learning_rat:")
    command = [sys.executable, "src/train.py", "20d", "data/binarized"]
    result = subprocess.run(command, cwd=demo, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "train.learning_rat is an unknown key; did you mean learning_rate?" in result.stderr
    assert hashes(demo / "dvc.lock") == before


@pytest.mark.parametrize(
    "script",
    [
        "download",
        "binarize",
        "train",
        "visualize",
        "anomaly",
        "likelihood",
        "report",
        "check",
        "track",
        "pretraining",
    ],
)
def test_a_script_called_with_the_wrong_arguments_says_how_to_call_it(script):
    command = [sys.executable, SRC / f"{script}.py", "too", "many", "of", "these", "words"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: usage: python ")
    assert result.stderr.count("\n") == 1


def check(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "src/tools/check.py"], cwd=folder, capture_output=True, text=True
    )


def test_the_committed_run_passes_make_check_and_a_corrupted_loss_fails_it_by_its_epoch(tmp_path):
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path], check=True)
    result = check(tmp_path)
    assert result.returncode == 0, result.stderr
    table = tmp_path / "plots/2d-losses.csv"
    lines = table.read_text().splitlines()
    epoch, train_loss, *rest = lines[4].split(",")
    lines[4] = ",".join([epoch, str(float(train_loss) + 30), *rest])
    table.write_text("\n".join(lines) + "\n")
    result = check(tmp_path)
    assert result.returncode == 1
    assert "2d train loss of epoch 4, notebook" in result.stderr
    assert result.stderr.count("was replayed") == 1
    table.write_text("\n".join(lines[:4]) + "\n")
    assert "2d test loss of epoch 10, notebook: published 140.79" in check(tmp_path).stderr


def test_a_model_of_another_name_is_refused_in_one_line():
    command = [sys.executable, SRC / "train.py", "3d", "data/binarized"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == "error: there is no model 3d; it should be 20d or 2d\n"
