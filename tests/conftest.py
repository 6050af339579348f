"""Small real data, and the demo's pipeline run once for the tests that need a whole one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import download
from vae.data import FILE_NAMES, RAW_FOLDER, Split, binarize, read_idx, save_split
from vae.params import Architecture, Params, check_params
from vae.rebuild import scratch_environment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed parameters."""
    return check_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like data/binarized, of scikit-learn's digits."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("binarized")
    download.write_digits(raw)
    for name, (images, labels) in FILE_NAMES.items():
        pixels, classes = read_idx(raw / RAW_FOLDER / images, 3), read_idx(raw / RAW_FOLDER / labels, 1)
        save_split(Split(binarize(pixels, 128), classes), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def images() -> torch.Tensor:
    """100 random binary images, `(100, 784)` uint8."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 2, (100, 784), dtype=np.uint8))


@pytest.fixture
def small() -> Architecture:
    """An architecture that trains in no time."""
    return Architecture(hidden_sizes=(16, 8), latent_size=2)


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo: the whole pipeline on scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, ROOT / "src/demo.py", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def demo(finished_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it for the tests of a module, which go on from what the one before left."""
    return shutil.copytree(finished_demo, tmp_path_factory.mktemp("copy") / "demo")


def call(folder: Path, *command: str | Path) -> str:
    """The output of a DVC or git command that ends well in `folder`, as a user without settings runs it."""
    home = {name: os.devnull for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")}
    home |= {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**scratch_environment(), **home}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def repository(finished_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository with the demo's parameters and results committed, and its cache."""
    folder = tmp_path_factory.mktemp("repository") / "vae"
    call(ROOT, "git", "clone", "--quiet", ROOT, folder)
    ignored = shutil.ignore_patterns("config", "mlflow.db*", "mlartifacts")
    shutil.copytree(finished_demo, folder, ignore=ignored, dirs_exist_ok=True)
    call(folder, "git", "add", "--all")
    call(folder, "git", "commit", "--quiet", "-m", "demo")
    return folder
