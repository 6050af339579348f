"""Run the whole pipeline in a scratch folder, on scikit-learn's digits: no network, no MNIST, few steps."""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vae.cli import UserError
from vae.params import override_params
from vae.rebuild.build import ROOT, outlived, scratch_environment

# As many frames as the full run has, from as many steps.
OVERRIDES = {
    "download": {"dataset": "digits"},
    "figures": {"interval": 1},
    "train": {"epochs": 10, "batch_size": 32, "device": "cpu"},
    "visualize": {"neighbours": 20},
}


def main() -> None:
    folder = Path(
        sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="vae-demo-")
    ).resolve()
    prepare(folder)
    dvc = [sys.executable, "-m", "dvc", "repro"]
    process = subprocess.Popen(dvc, cwd=folder, env=scratch_environment())
    with outlived(process):
        failed = process.wait()
    if failed:
        raise UserError(f"the demo failed in {folder}; the lines above say why")
    print(f"the demo's results: {folder}/report.html, plots/ and metrics/ beside it")


def prepare(folder: Path) -> None:
    """Copy the pipeline to `folder` and change its parameters. Raises UserError if it holds anything."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a new folder")
    for name in ("src", "data/published", "studies", ".dvc/plots"):
        # The studies' results are read; their stages would want MNIST.
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.*")
        )
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    override_params(folder / "params.yaml", OVERRIDES)


if __name__ == "__main__":
    cli.run(main)
