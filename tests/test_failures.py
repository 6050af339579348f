"""Bad input, full and read-only disks, little memory: met by the real pipeline."""

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT, copy_demo
from vae.files import md5
from vae.rebuild.build import override_params, scratch_environment


def run(folder: Path, *command: str | Path, **options) -> subprocess.CompletedProcess:
    """Run a command as a user in `folder` would; what it printed is one text."""
    options = {"env": scratch_environment(), "stdout": subprocess.PIPE, **options}
    return subprocess.run(command, cwd=folder, stderr=subprocess.STDOUT, text=True, **options)


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run(folder, "dvc", *arguments)


def script(folder: Path, name: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    return run(folder, sys.executable, f"src/{name}.py", *arguments, **options)


def assert_one_line(result: subprocess.CompletedProcess, message: str) -> None:
    """Assert that it failed with one line of ours that holds `message`, and without a traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stdout
    assert message in lines[0]


def outputs(folder: Path) -> dict[str, str]:
    """The checksums of everything that the stages write."""
    folders = [folder / name for name in ("data", "models", "metrics", "plots")]
    paths = [folder / "report.html", *(path for each in folders for path in each.rglob("*"))]
    return {str(path.relative_to(folder)): md5(path) for path in paths if path.is_file()}


@pytest.mark.parametrize(
    ("file", "old", "new", "target", "message"),
    [
        ("params.yaml", "epochs:", "epoch:", "train-2d", "did you mean epochs?"),
        ("data/published/tables.yaml", "epochs: 10", "epochs: ten", "report", "is 'ten'; it"),
        ("studies/seeds.csv", "noise_kl", "kl", "report", "seeds.csv is not a study's table"),
        ("params.yaml", "rate: 0.001", "rate: 10.0", "train-2d", "a lower train.learning_rate may"),
    ],
)
def test_bad_input_ends_repro_in_one_line_and_loses_nothing(
    repository, file, old, new, target, message
):
    before, path = outputs(repository), repository / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert_one_line(dvc(repository, "repro", "--single-item", target), message)
    assert not list(repository.rglob(".tmp-*"))
    subprocess.run(["git", "checkout", "-q", "."], cwd=repository, check=True)
    result = dvc(repository, "checkout")
    assert result.returncode == 0, result.stdout
    assert outputs(repository) == before


@pytest.fixture
def mounted() -> Iterator[Callable[..., Path]]:
    """Mount a file system in a new folder, for root alone; unmount it in the end."""
    folder = Path(tempfile.mkdtemp())

    def mount(*options: str | Path) -> Path:
        result = run(folder.parent, "mount", *options, folder)
        if result.returncode:
            pytest.skip(f"mounting a small disk needs root on Linux: {result.stdout}")
        return folder

    try:
        yield mount
    finally:
        run(folder.parent, "umount", "--lazy", folder)
        folder.rmdir()


TMPFS = ("-t", "tmpfs", "tmpfs")


def remount(folder: Path, kibibytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", folder], check=True)


def test_a_training_on_a_full_disk_can_be_repeated(finished_demo, mounted):
    disk = mounted("-o", "size=1g", *TMPFS)
    folder = copy_demo(finished_demo, disk / "demo")
    shutil.rmtree(folder / "mlartifacts")
    # MLflow's files would be on this disk, too.
    override_params(folder / "params.yaml", {"tracking": {"enabled": False}})
    before = outputs(folder)
    # DVC removes the outputs first, which makes some room: enough for one checkpoint, not for two.
    remount(disk, shutil.disk_usage(disk).used // 1024 + 4000)
    options = ("--single-item", "--force", "--no-run-cache", "train-20d")
    assert_one_line(dvc(folder, "repro", *options), "No space left on device: ")
    assert not list(folder.rglob(".tmp-*"))
    remount(disk, 1_000_000)
    result = dvc(folder, "repro", *options)
    assert result.returncode == 0, result.stdout
    assert outputs(folder) == before


def test_on_a_full_disk_mlflows_database_is_named(demo, mounted):
    disk = mounted("-o", "size=200k", *TMPFS)
    environment = scratch_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{disk}/mlflow.db"}
    result = script(demo, "train", "2d", "data/binarized", env=environment)
    assert_one_line(result, "(sqlite3.OperationalError) database or disk is full")


def test_a_read_only_disk_keeps_the_outputs_and_is_named(demo, mounted):
    before = outputs(demo)
    folder = mounted("--bind", demo)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    result = script(folder, "download", "data/raw")
    assert_one_line(result, "Read-only file system: data/raw/Digits/raw/train-images")
    assert outputs(demo) == before


def test_with_too_little_memory_a_training_says_what_decides_it(demo):
    before = outputs(demo)
    changes = {"train-20d": {"hidden_sizes": [100_000]}, "tracking": {"enabled": False}}
    override_params(demo / "params.yaml", changes)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (5 * 2**30, 5 * 2**30))

    result = script(demo, "train", "20d", "data/binarized", preexec_fn=limit)
    assert_one_line(result, "not enough memory; free some, or lower layer sizes, batch sizes")
    assert outputs(demo) == before


@pytest.mark.parametrize(
    ("file", "content", "stage", "message"),
    [
        ("metrics/anomaly.json", "metrics/20d.json", "report", "anomaly.json (it has no "),
        ("models/2d-frames.arrow", "models/20d-frames.arrow", "visualize", "frames.arrow ("),
        ("models/2d.json", "models/20d.json", "visualize", "models/2d.safetensors ("),
    ],
)
def test_another_intermediate_file_ends_a_script_in_one_line(demo, file, content, stage, message):
    shutil.copy(demo / content, demo / file)
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    result = script(demo, stage, *stages[stage]["cmd"].split()[2:])
    assert_one_line(result, message)
