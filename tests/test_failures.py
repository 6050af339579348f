"""Bad input, full and read-only disks, little memory: met by the real pipeline."""

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import call, copy_demo
from vae.files import md5
from vae.rebuild.build import override_params, scratch_environment


def assert_one_line(message: str, folder: Path, *command: str, **options) -> None:
    """Run a command, which must fail with one line of ours that holds `message`, in `folder`."""
    options = {"env": scratch_environment(), "text": True, "cwd": folder, **options}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
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
        ("metrics/anomaly.json", "noise_kl", "kl", "report", "anomaly.json (it has no noise_kl)"),
        ("params.yaml", "rate: 0.001", "rate: 10.0", "train-2d", "a lower train.learning_rate may"),
    ],
)
def test_bad_input_ends_repro_in_one_line_and_loses_nothing(
    repository, file, old, new, target, message
):
    before, path = outputs(repository), repository / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert_one_line(message, repository, "dvc", "repro", "--single-item", target)
    assert not list(repository.rglob(".tmp-*"))
    call(repository, "git", "checkout", "-q", ".")
    call(repository, "dvc", "checkout")
    assert outputs(repository) == before


@pytest.fixture
def mounted() -> Iterator[Callable[..., Path]]:
    """Mount a file system in a new folder, for root alone; unmount it in the end."""
    folder = Path(tempfile.mkdtemp())

    def mount(*options: str | Path) -> Path:
        result = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"mounting a small disk needs root on Linux: {result.stderr}")
        return folder

    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", folder], stderr=subprocess.DEVNULL)
        folder.rmdir()


def test_a_training_on_a_full_disk_can_be_repeated(finished_demo, mounted):
    disk = mounted("-t", "tmpfs", "-o", "size=1g", "tmpfs")
    folder = copy_demo(finished_demo, disk / "demo")
    shutil.rmtree(folder / "mlartifacts")
    # MLflow's files would be on this disk, too.
    override_params(folder / "params.yaml", {"tracking": {"enabled": False}})
    before = outputs(folder)
    # DVC removes the outputs first, which makes some room: enough for one checkpoint, not for two.
    call(disk, "mount", "-o", f"remount,size={shutil.disk_usage(disk).used // 1024 + 4000}k", disk)
    command = ("dvc", "repro", "--single-item", "--force", "--no-run-cache", "train-20d")
    assert_one_line("No space left on device: ", folder, *command)
    assert not list(folder.rglob(".tmp-*"))
    call(disk, "mount", "-o", "remount,size=1g", disk)
    call(folder, *command)
    assert outputs(folder) == before


def test_on_a_full_disk_mlflows_database_is_named(demo, mounted):
    disk = mounted("-t", "tmpfs", "-o", "size=200k", "tmpfs")
    environment = scratch_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{disk}/mlflow.db"}
    message = "(sqlite3.OperationalError) database or disk is full"
    assert_one_line(
        message, demo, "python", "src/train.py", "2d", "data/binarized", env=environment
    )


def test_a_read_only_disk_keeps_the_outputs_and_is_named(demo, mounted):
    before = outputs(demo)
    folder = mounted("--bind", demo)
    call(folder, "mount", "-o", "remount,ro,bind", folder)
    message = "Read-only file system: data/raw/Digits/raw/train-images"
    assert_one_line(message, folder, "python", "src/download.py", "data/raw")
    assert outputs(demo) == before


def test_with_too_little_memory_a_training_says_what_decides_it(demo):
    before = outputs(demo)
    changes = {"train-20d": {"hidden_sizes": [100_000]}, "tracking": {"enabled": False}}
    override_params(demo / "params.yaml", changes)
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (5 * 2**30, 5 * 2**30))
    message = "not enough memory; free some, or lower layer sizes, batch sizes"
    assert_one_line(
        message, demo, "python", "src/train.py", "20d", "data/binarized", preexec_fn=limit
    )
    assert outputs(demo) == before
