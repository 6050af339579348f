"""dvc.yaml against the code, and the whole pipeline on scikit-learn's digits."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageSequence
from ruamel.yaml import YAML

from conftest import ROOT, call
from test_house import imported
from vae.files import md5, read_json
from vae.rebuild.build import override_params
from vae.rebuild.compare import hashes
from vae.report import text

SRC = ROOT / "src"
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]

# What others rely on.
FIGURES = "losses originals reconstruction samples manifold manifold-regions latent kl-divergence"
FIGURES += " noise anomalies reproduction"
OUTPUTS = ["data/raw/Digits/raw/train-images-idx3-ubyte.gz", "report.html"]
OUTPUTS += [f"data/binarized/{name}.safetensors" for name in ("train", "test")]
OUTPUTS += [f"metrics/{name}.json" for name in ("anomaly", "likelihood", "reproduction", "summary")]
OUTPUTS += [f"plots/{name}.png" for name in FIGURES.split()]
for model in ("20d", "2d"):
    OUTPUTS += [f"models/{model}{end}" for end in (".safetensors", ".json", "-frames.arrow")]
    OUTPUTS += [f"metrics/{model}.json", f"plots/{model}-losses.csv"]
for name in ("reconstruction", "manifold"):
    OUTPUTS += [f"plots/{name}.gif", f"plots/{name}-early.gif"]


def imports(path: Path) -> set[Path]:
    """The files of src/ that one of them imports, but for tracking."""
    names = imported(path)
    names |= {name.rpartition(".")[0] for name in names}
    parts = [name.split(".") for name in names if name and not name.startswith("vae.tracking")]
    found = {SRC.joinpath(*part).with_suffix(".py") for part in parts}
    # Of the packages' own files those of vae and exact count; the others hold a docstring alone.
    found |= {SRC / part[0] / "__init__.py" for part in parts if part[0] in ("vae", "exact")}
    return {file for file in found if file.exists()}


def all_imports(path: Path) -> set[Path]:
    found, new = set(), {path}
    while new := new - found:
        found |= new
        new = set().union(*map(imports, new))
    if SRC / "exact/library.py" in found:  # which compiles them
        found |= {*(SRC / "exact").glob("*.c"), *(SRC / "exact").glob("*.h")}
    if SRC / "vae/model.py" in found:  # which imports a class by its name
        found |= set((SRC / "networks").glob("*.py"))
    return found


def keys_read(script: Path) -> set[str]:
    """The groups of params.yaml that a script reads, by `read_params` or as `params.GROUP`."""
    if groups := getattr(importlib.import_module(script.stem), "GROUPS", None):
        return {group.partition(".")[0] for group in groups}
    found = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "read_params":
            found |= {argument.value.partition(".")[0] for argument in node.args}
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "params":
            found.add(node.attr)
    return found


@pytest.mark.parametrize("file", ["dvc.yaml", "studies/dvc.yaml"])
def test_a_stage_declares_exactly_the_sources_it_imports(file):
    for name, stage in YAML(typ="safe").load(ROOT / file)["stages"].items():
        sources = [dep for dep in stage["deps"] if dep.startswith("src/")]
        if name == "track":  # whose outputs are in MLflow: it follows the results
            sources.remove("src/vae/tracking")
            assert sources == ["src/tools/track.py"]
            continue
        script = ROOT / stage["cmd"].removeprefix("PYTHONPATH=src ").split()[1]
        # No result depends on the surroundings.
        needed = all_imports(script) - {SRC / "tools/src_path.py", SRC / "vae/environment.py"}
        if script.is_relative_to(SRC):  # what it reads lies beside it
            needed |= set(script.parent.glob(f"{script.stem}.*"))
        else:
            assert script.relative_to(ROOT).as_posix() in stage["deps"], name
            needed.remove(script)
        # A folder stands for all files below it.
        declared = {dep: {p for p in needed if p.is_relative_to(ROOT / dep)} for dep in sources}
        assert set().union(*declared.values()) == needed and all(declared.values()), name


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_it_reads(stage):
    declared = {key.partition(".")[0] for key in STAGES[stage].get("params", [])}
    if stage.startswith("train-"):
        # train.py takes its own group, train-NAME, through training_params with the shared ones.
        declared.remove(stage)
        assert declared == {"seed", "figures", "train"}
    elif stage != "track":
        assert declared == keys_read(ROOT / STAGES[stage]["cmd"].split()[1])


def test_results_depend_on_packages_but_not_on_tracking_or_mirrors():
    for name, stage in STAGES.items():
        independent = name in ("download", "binarize", "track")
        assert ("requirements.lock" in stage["deps"]) != independent, name
        assert name == "track" or not any("tracking" in dep for dep in stage["deps"])
        assert not {"download", "download.mirrors", "tracking"} & set(stage.get("params", []))


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of the last commit, without what DVC has."""
    folder = tmp_path_factory.mktemp("clone")
    call(ROOT, "git", "clone", "--quiet", ROOT, folder)
    return folder


def test_dvc_lock_belongs_to_the_commit(clone):
    status = json.loads(call(clone, sys.executable, "-m", "dvc", "status", "--json"))
    del status["track"]  # which depends on folders: of each, git has a part
    assert "changed command" not in (found := json.dumps(status))
    assert set(re.findall(': "(.*?)"', found)) <= {"deleted", "not in cache"}, found


def test_the_readmes_figures_are_those_that_dvc_lock_names():
    locked = hashes(ROOT / "dvc.lock")
    found = {f"plots/{path.name}": md5(path) for path in (ROOT / "docs/figures").iterdir()}
    assert found and found.items() <= locked.items()


def test_the_readmes_verdicts_are_those_of_the_committed_results(clone):
    values = pd.DataFrame(read_json(clone / "metrics/reproduction.json")["published"])
    kinds = text.verdict_counts(values)
    readme = (ROOT / "README.md").read_text()
    assert len(kinds) == 5
    for what, *counts in kinds.itertuples():
        assert f"| {what} | {' | '.join(map(str, counts))} |" in readme


def test_the_pipeline_makes_every_output_and_nothing_temporary(finished_demo):
    for name in OUTPUTS:
        assert (finished_demo / name).stat().st_size > 0, name
    assert not list(finished_demo.rglob(".tmp-*"))


def test_figures_have_the_posts_sizes_and_paces(finished_demo):
    """Below a strip of 26 pixels that counts epochs, and with two seconds for the last frame."""
    paces = {"reconstruction": 50 * 95, "reconstruction-early": 100 * 149}
    paces |= {"manifold": 50 * 95, "manifold-early": 100 * 99}
    last = {}
    for name, milliseconds in paces.items():
        with Image.open(finished_demo / f"plots/{name}.gif") as gif:
            assert gif.size == (560, 26 + (224 if "reconstruction" in name else 560))
            durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
            assert sum(durations) == milliseconds + 2000
            last[name] = np.array(gif.convert("L"))[26:]
    still = np.array(Image.open(finished_demo / "plots/reconstruction.png"))
    assert (still == last["reconstruction"]).all()


def test_loss_tables_hold_every_epoch_split_into_its_terms(finished_demo):
    for model in ("20d", "2d"):
        table = pd.read_csv(finished_demo / f"plots/{model}-losses.csv")
        assert table["epoch"].tolist() == list(range(1, 11))
        for split in ("train", "test"):
            terms = table[f"{split}_reconstruction"] + table[f"{split}_kl"]
            assert terms.tolist() == table[f"{split}_loss"].tolist()
        assert read_json(finished_demo / f"metrics/{model}.json") == table.iloc[-1].to_dict()


def test_only_stages_that_depend_on_a_parameter_run_again(demo):
    def stages_run() -> list[str]:
        output = call(demo, sys.executable, "-m", "dvc", "repro")
        return re.findall("^Running stage '(.*)'", output, re.MULTILINE)

    assert stages_run() == []
    override_params(demo / "params.yaml", {"anomaly": {"noise_images": 500}})
    assert stages_run() == ["anomaly", "report", "track"]


SCRIPTS = {path.stem for path in (*SRC.glob("*.py"), *SRC.glob("tools/*.py"))}


# src_path is no script, and repro gives its process, with all options, to DVC.
@pytest.mark.parametrize("name", sorted(SCRIPTS - {"src_path", "repro"}))
@pytest.mark.parametrize(("option", "status"), [("--no-such-option", 2), ("--help", 0)])
def test_wrong_arguments_are_answered_with_the_usage(name, option, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", option])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(name).main()
    assert caught.value.code == status
    assert "".join(capsys.readouterr()).startswith(f"usage: {name}.py ")


def test_make_check_passes_as_committed_and_names_a_corrupted_loss(clone):
    # The loss tables, which DVC has and git has not.
    values = pd.DataFrame(read_json(clone / "metrics/reproduction.json")["published"])
    for model, rows in values[values["source"] == "notebook"].groupby("model"):
        ours = rows.pivot(index="epoch", columns="split", values="ours").add_suffix("_loss")
        ours.to_csv(clone / f"plots/{model}-losses.csv")

    def check(losses: pd.DataFrame) -> tuple[int, str]:
        losses.to_csv(clone / "plots/2d-losses.csv", index=False)
        command = [sys.executable, "src/tools/check.py"]
        result = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        return result.returncode, result.stderr

    losses = pd.read_csv(clone / "plots/2d-losses.csv")
    status, message = check(losses)
    assert status == 0, message
    losses.loc[3, "train_loss"] += 30
    status, message = check(losses)
    assert (status, message.count("was replayed")) == (1, 1)
    assert "2d train loss of epoch 4, notebook" in message
    assert "2d test loss of epoch 10, notebook: published 140.79" in check(losses[:4])[1]
