"""The pipeline run by DVC in scratch folders: under this Python, away from the user's settings."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from vae.cli import UserError
from vae.files import written_whole
from vae.params import read_params

ROOT = Path(__file__).resolve().parents[3]
# Places that a user's environment may name; a pipeline in a scratch folder has its own.
PLACES = ("MLFLOW_TRACKING_URI", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DVC_ROOT")


def build(
    folder: Path,
    overrides: dict[str, Any],
    variables: dict[str, str],
    targets: tuple[str, ...] = (),
    umask: int = 0o022,
    mtime: int = 10**9,
) -> None:
    """Clone the committed state to `folder` and run its pipeline there, without any cache.

    `overrides` change params.yaml; `variables` are added to an environment whose home is the
    clone's parent; `mtime` dates the sources, in seconds after 1970. Raises UserError.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    for path in (folder / "src").rglob("*"):
        os.utime(path, (mtime, mtime))
    override_params(folder / "params.yaml", overrides)
    own = {"HOME": str(folder.parent), "MNIST_MIRROR": local_mnist()}
    environment = {**scratch_environment(), **own, **variables}
    options = ("--force", "--no-run-cache", *targets)
    run_pipeline(folder, *options, env=environment, umask=umask)


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
        ended, deadline = set(), time.monotonic() + 30
        while (group := _group(process.pid)) and time.monotonic() < deadline:
            # Also a stage that DVC was about to start.
            for member in group - ended:
                with suppress(psutil.NoSuchProcess):
                    member.terminate()
            ended |= group
            process.poll()
            time.sleep(0.05)
        raise
    if status:
        raise UserError(f"the pipeline in {folder} failed; the lines above say why")


def _group(leader: int) -> set[psutil.Process]:
    """The living processes of a process group."""
    found = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            alive = process.status() != psutil.STATUS_ZOMBIE
            found |= {process} if alive and os.getpgid(process.pid) == leader else set()
    return found


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
    return {**kept, "DVC_NO_ANALYTICS": "1", "PATH": path}


def local_mnist() -> str:
    """Find MNIST for clones: this checkout's own, a mirror that is a folder, else MNIST_MIRROR."""
    (download,) = read_params("download", path=ROOT / "params.yaml")
    folders = [ROOT / name for name in ("data/raw/MNIST/raw", *download.mirrors)]
    known = os.environ.get("MNIST_MIRROR", "")
    return next((str(folder) for folder in folders if folder.is_dir()), known)
