"""The committed state built anew in a scratch folder, without any cache."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vae.cli import UserError
from vae.data import RAW_FOLDER
from vae.params import override_params, read_params

import psutil

ROOT = Path(__file__).resolve().parents[3]
# What a user's environment may say of places; the builds have their own.
PLACES = ("MLFLOW_TRACKING_URI", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DVC_ROOT")


def build(
    folder: Path,
    overrides: dict[str, Any],
    environment: dict[str, str],
    umask: int = 0o022,
    cores: set[int] = frozenset(),
    targets: tuple[str, ...] = (),
    dated: int | None = None,
) -> None:
    """Clone the committed state to `folder` and run its pipeline there, with changed parameters, under these
    environment variables, umask, visible cores (all of them if none is named) and with the sources dated
    so many seconds after 1970. Raises UserError."""
    checkout(folder)
    if dated is not None:
        for path in (folder / "src").rglob("*"):
            os.utime(path, (dated, dated))
    override_params(folder / "params.yaml", overrides)
    print(f"building in {folder}", flush=True)
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    variables = {
        **scratch_environment(),
        "HOME": str(home),
        "MNIST_MIRROR": mirror(),
        **environment,
    }

    def settle() -> None:
        os.umask(umask)
        if cores:
            os.sched_setaffinity(0, cores)

    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", *targets]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        preexec_fn=settle,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    output = []
    with outlived(process):
        for line in process.stdout:
            output.append(line)
            if line.startswith("Running stage"):
                print(f"  {line.split(chr(39))[1]}", flush=True)
    if process.wait():
        print("".join(output))
        raise UserError(f"the build in {folder} failed; the lines above say why")


@contextmanager
def outlived(process: subprocess.Popen) -> Iterator[None]:
    """End a DVC and its stage when this script is interrupted meanwhile, before it ends itself."""
    try:
        yield
    except BaseException:
        family = psutil.Process(process.pid).children(recursive=True)
        for one in (*family, process):
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        psutil.wait_procs(family, timeout=30)
        process.wait()
        raise


def scratch_environment() -> dict[str, str]:
    """This process's environment for a pipeline elsewhere: under this Python, nothing said of `PLACES`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in PLACES}
    return {**kept, "DVC_NO_ANALYTICS": "1", "PATH": path}


def checkout(folder: Path) -> Path:
    """A clone of the committed state."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def unsettle(folder: Path) -> None:
    """Beside the clone to come, a home whose owner has settings of their own for matplotlib and DVC."""
    for name, text in (
        ("matplotlib/matplotlibrc", "font.size: 20\nsavefig.dpi: 40\nimage.cmap: jet\n"),
        ("dvc/config", "[core]\n    autostage = true\n[cache]\n    type = hardlink,symlink\n"),
    ):
        path = folder / "home/.config" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)


def mirror() -> str:
    """Where the clones find MNIST: this checkout's download, else the first mirror that is a folder."""
    (download,) = read_params("download", path=ROOT / "params.yaml")
    folders = [
        ROOT / "data/raw" / RAW_FOLDER,
        *(ROOT / name for name in download.mirrors if "://" not in name),
    ]
    return next((str(folder.resolve()) for folder in folders if folder.is_dir()), "")
