"""The pipeline run by DVC in scratch folders: under this Python, away from the user's settings."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from vae.cli import UserError
from vae.files import written_whole

ROOT = Path(__file__).resolve().parents[3]
# This checkout's own files, where it has any: a clone need not fetch them.
MNIST = ROOT / "data/raw/MNIST/raw"
# Places that a user's environment may name; a pipeline in a scratch folder has its own.
PLACES = ("MLFLOW_TRACKING_URI", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DVC_ROOT")


def build(
    folder: Path, overrides: dict[str, Any], variables: dict[str, str], umask: int, mtime: int
) -> None:
    """Clone the committed state to `folder` and run its pipeline there, without any cache.

    `overrides` change params.yaml; `variables` are added to an environment whose home is the
    clone's parent; `mtime` dates the sources, in seconds after 1970. Raises UserError.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    for path in (folder / "src").rglob("*"):
        os.utime(path, (mtime, mtime))
    override_params(folder / "params.yaml", overrides)
    environment = {**scratch_environment(), "HOME": str(folder.parent), **variables}
    if MNIST.is_dir():
        environment["MNIST_MIRROR"] = str(MNIST)
    run_pipeline(folder, "--force", "--no-run-cache", env=environment, umask=umask)


def run_pipeline(folder: Path, *options: str, **popen: Any) -> None:
    """Run `dvc repro` in `folder`; if this is interrupted, end DVC and its stage first.

    Raises UserError.
    """
    command = [sys.executable, "-m", "dvc", "repro", *options]
    popen = {"env": scratch_environment(), "start_new_session": True, **popen}
    process = subprocess.Popen(command, cwd=folder, **popen)
    try:
        status = process.wait()
    except BaseException:
        # As Ctrl-C on a terminal does, to DVC and its stage.
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        psutil.wait_procs(family, timeout=30)
        raise
    if status:
        raise UserError(f"the pipeline in {folder} failed; the lines above say why")


def override_params(path: Path, overrides: dict[str, Any]) -> None:
    """Change values in a params.yaml, by group and key, or by key alone at the top."""
    yaml = YAML()
    params = yaml.load(path)
    for name, value in overrides.items():
        params[name] = {**params[name], **value} if isinstance(value, dict) else value
    with written_whole(path) as temporary:
        yaml.dump(params, temporary)


def scratch_environment() -> dict[str, str]:
    """Give this process's environment, without `PLACES`, to a pipeline elsewhere."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in PLACES}
    return {**kept, "PATH": path}
