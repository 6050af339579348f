"""The pipeline in scratch folders, with this Python and without the user's settings."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vae.cli import UserError
from vae.files import written_whole
from vae.git import git

ROOT = Path(__file__).resolve().parents[3]
# This checkout's own data, so that a clone need not download it.
MNIST = ROOT / "data/raw/MNIST/raw"
# A pipeline in a scratch folder has its own places for these.
PLACES = ("MLFLOW_TRACKING_URI", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DVC_ROOT")


def build(clone: Path, overrides: dict[str, Any], variables: dict[str, str], umask: int) -> Path:
    """Clone the last commit and run its pipeline without any cache; return its folder.

    `overrides` change params.yaml, `variables` the environment, whose home is the clone's parent.
    Raises UserError.
    """
    # The project may be a folder of a larger repository.
    top, place = (git("-C", str(ROOT), "rev-parse", f"--show-{n}") for n in ("toplevel", "prefix"))
    if not git("-C", str(ROOT), "ls-tree", "HEAD", "dvc.lock"):
        raise UserError(f"git has no commit of {ROOT}/dvc.lock to rebuild; run in a clone")
    subprocess.run(["git", "clone", "--quiet", top, clone], check=True)
    folder = clone / place
    override_params(folder / "params.yaml", overrides)
    environment = {**scratch_environment(), "HOME": str(clone.parent), **variables}
    if MNIST.is_dir():
        environment["MNIST_MIRROR"] = str(MNIST)
    run_pipeline(folder, "--force", "--no-run-cache", env=environment, umask=umask)
    return folder


def run_pipeline(folder: Path, *options: str, **popen: Any) -> None:
    """Run the pipeline in `folder`; an interrupt ends it, too. Raises UserError."""
    command = [sys.executable, "src/tools/repro.py", *options]
    popen = {"env": scratch_environment(), "start_new_session": True, **popen}
    process = subprocess.Popen(command, cwd=folder, **popen)
    try:
        status = process.wait()
    except BaseException:
        # To the whole group, as Ctrl-C on a terminal: DVC waits for its stage to end.
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise
    if status:
        raise UserError(f"the pipeline in {folder} failed; the lines above say why")


def override_params(path: Path, overrides: dict[str, Any]) -> None:
    """Change values in a params.yaml: whole top-level keys, or keys of a group."""
    yaml = YAML()
    params = yaml.load(path)
    for name, value in overrides.items():
        params[name] = {**params[name], **value} if isinstance(value, dict) else value
    with written_whole(path) as temporary:
        yaml.dump(params, temporary)


def scratch_environment() -> dict[str, str]:
    """Return this process's environment without `PLACES`, for a pipeline in another folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in PLACES}
    return {**kept, "PATH": path}


def processor() -> str:
    """Return the processor's name, family and model, as the system gives them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
