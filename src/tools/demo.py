"""Run the pipeline on scikit-learn's digits in a new folder, without network and MNIST."""

import argparse
import shutil
import tempfile
from pathlib import Path
import src_path  # noqa: F401

from vae import cli
from vae.cli import UserError
from vae.rebuild.build import ROOT, override_params, run_pipeline

# As many frames as the full run records, and about as many steps.
OVERRIDES = {
    "download": {"dataset": "digits"},
    "figures": {"interval": 1},
    "train": {"epochs": 10, "batch_size": 32, "device": "cpu"},
    "visualize": {"neighbours": 20},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a new folder (default: one in /tmp)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="vae-demo-"))
    copy_pipeline(folder)
    run_pipeline(folder)
    print(f"the demo's results: {folder.resolve()}/report.html, plots/ and metrics/ beside it")


def copy_pipeline(folder: Path) -> None:
    """Copy the pipeline to `folder`, which should be empty, and change parameters to `OVERRIDES`.

    Raises UserError.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a new folder")
    # Without the stages of the studies, which need MNIST.
    unwanted = shutil.ignore_patterns("__pycache__", "dvc.*")
    for name in ("src", "data/published", "studies", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    (folder / "data/own").mkdir()
    files = ("dvc.yaml", "params.yaml", "requirements.lock", ".dvcignore", "data/own/README.md")
    for name in files:
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    override_params(folder / "params.yaml", OVERRIDES)


if __name__ == "__main__":
    cli.run(main)
