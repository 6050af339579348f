"""Parameters at the ends of what is allowed, through the whole pipeline, on small digits."""

import pytest

from conftest import call
from vae.rebuild.build import override_params
from vae.rebuild.compare import hashes

# One run has several at once: each costs the whole pipeline.
EXTREMES = {
    "the least of all": {
        "seed": 0,
        "binarize": {"threshold": 1},
        "figures": {"images": [0], "interval": 50, "grid_size": 2, "gray_levels": 2},
        "train": {"epochs": 1, "batch_size": 1, "learning_rate": 1e-12},  # the lowest that counts
        "train-20d": {"latent_size": 1},
        "likelihood": {"images": 2, "samples": 1},
        "anomaly": {"noise_images": 1, "batch_size": 1},
    },
    "the most": {
        "seed": 2**32 - 1,
        "binarize": {"threshold": 255},
        "figures": {"gray_levels": 256},
        "train": {"epochs": 2, "batch_size": 60_000},  # larger than the data
        "train-20d": {"latent_size": 64},
    },
    "no hidden layer, drawn pixels, an interval longer than an epoch": {
        "binarize": {"mode": "sample"},
        "figures": {"interval": 10**6},
        "train": {"epochs": 2},
        "train-20d": {"hidden_sizes": []},
        "train-2d": {"hidden_sizes": [], "preceded_by": None},
    },
    "gray pixels": {"binarize": {"mode": "none"}, "train": {"epochs": 2}},
}


@pytest.mark.parametrize("overrides", EXTREMES.values(), ids=EXTREMES)
def test_the_pipeline_makes_every_output_with(demo, overrides):
    before = hashes(demo / "dvc.lock")
    override_params(demo / "params.yaml", {**overrides, "tracking": {"enabled": False}})
    call(demo, "dvc", "repro", "--quiet")
    after = hashes(demo / "dvc.lock")
    assert set(after) == set(before)
    assert after["models/20d.safetensors"] != before["models/20d.safetensors"]
    gray = overrides.get("binarize") == {"mode": "none"}
    assert ("Gaussian around the decoder" in (demo / "report.html").read_text()) == gray
