"""Parameters at the ends of what is allowed, through the whole pipeline, on small digits."""

import subprocess
import sys

import pytest

from vae.rebuild.build import override_params, scratch_environment
from vae.rebuild.compare import hashes

EXTREMES = {
    "one epoch": {"train": {"epochs": 1}},
    "batches of one": {"train": {"epochs": 1, "batch_size": 1}},
    "a batch larger than the data": {"train": {"batch_size": 60_000}},
    "the lowest learning rate that counts": {"train": {"epochs": 1, "learning_rate": 1e-12}},
    "one latent dimension": {"train": {"epochs": 1}, "train-20d": {"latent_size": 1}},
    "three latent dimensions": {"train": {"epochs": 1}, "train-20d": {"latent_size": 3}},
    "64 latent dimensions": {"train": {"epochs": 1}, "train-20d": {"latent_size": 64}},
    "no hidden layer": {
        "train": {"epochs": 1},
        "train-20d": {"hidden_sizes": []},
        "train-2d": {"hidden_sizes": [], "preceded_by": None},
    },
    "ten hidden layers": {
        "train": {"epochs": 1},
        "train-20d": {"hidden_sizes": [50] * 10},
        "train-2d": {"hidden_sizes": [20] * 10},
    },
    "an interval longer than an epoch": {"train": {"epochs": 2}, "figures": {"interval": 10**6}},
    "one picture and the smallest grid": {
        "train": {"epochs": 1},
        "figures": {"images": [0], "grid_size": 2, "gray_levels": 2},
    },
    "256 gray levels": {"train": {"epochs": 1}, "figures": {"gray_levels": 256}},
    "the lowest threshold": {"train": {"epochs": 1}, "binarize": {"threshold": 1}},
    "the highest threshold": {"train": {"epochs": 1}, "binarize": {"threshold": 255}},
    "drawn pixels": {"train": {"epochs": 1}, "binarize": {"mode": "sample"}},
    "the first seed": {"train": {"epochs": 1}, "seed": 0},
    "the last seed": {"train": {"epochs": 1}, "seed": 2**32 - 1},
    "one sample of one noise image": {
        "train": {"epochs": 1},
        "likelihood": {"images": 2, "samples": 1},
        "anomaly": {"noise_images": 1, "batch_size": 1},
    },
}


@pytest.mark.parametrize("overrides", EXTREMES.values(), ids=EXTREMES)
def test_the_pipeline_makes_every_output_with(demo, overrides):
    before = hashes(demo / "dvc.lock")
    override_params(demo / "params.yaml", {**overrides, "tracking": {"enabled": False}})
    command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    environment = scratch_environment()
    result = subprocess.run(command, cwd=demo, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    after = hashes(demo / "dvc.lock")
    assert set(after) == set(before)
    assert after["models/20d.safetensors"] != before["models/20d.safetensors"]
    assert all((demo / name).exists() for name in after)
