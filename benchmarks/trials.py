"""What a trial costs in a study, against the train stage alone."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 20


def study_costs() -> dict[str, float]:
    """Measure the wall seconds of the 20-d train stage and of a trial of it in a study.

    Ray's start and the study's end are included, with one worker on all cores and with a worker for
    each core.
    """
    cores = os.cpu_count() or 1
    options = f"--models 20d --seeds 0-{SEEDS - 1} --output study.csv"
    study = [ROOT / "src/tools/study.py", *options.split()]
    return {
        "stage": wall_seconds([ROOT / "src/train.py", "20d", "data/binarized"]),
        "1 worker": wall_seconds([*study, "--cpus-per-trial", str(cores)]) / SEEDS,
        f"{cores} workers": wall_seconds(study) / SEEDS,
    }


def wall_seconds(command: list) -> float:
    """Time a script in a scratch folder with the committed parameters and MNIST."""
    unwanted = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "DVC_ROOT")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        for path in ("params.yaml", "data/binarized", "data/published"):
            (folder / path).symlink_to(ROOT / path)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - start
