"""A trained model as MLflow's logged model: `mlflow.pyfunc.load_model` loads it, without pickle.

It has the code that it needs beside its weights, so that it needs no checkout.
"""

import re
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.data import PIXELS, load_split
from vae.files import read_json
from vae.scores import SCORE_NAMES

if TYPE_CHECKING:
    from vae.model import VAE
    from vae.tracking.store import Store

# What the code imports that does not come with MLflow.
REQUIREMENTS = ("ruamel.yaml", "safetensors", "torch")
NOT_IMPORTED = ("__pycache__", "rebuild", "report", "reproduction", "study")
OUTPUTS = {"probabilities": ("float32", (-1, PIXELS))}
OUTPUTS |= dict.fromkeys(SCORE_NAMES, ("float64", (-1,)))


def log_model(store: "Store", run_id: str, weights: Path) -> str:
    """Log weights, architecture and code as the run's logged model, which it has once, with the
    losses after the last epoch; return its id."""
    from mlflow.entities import LoggedModelOutput

    client, of_run = store.client, f"source_run_id = '{run_id}'"
    found = list(client.search_logged_models([store.experiment], of_run))
    if not found:
        params = {key: str(value) for key, value in read_json(weights.with_suffix(".json")).items()}
        # MLflow takes none of these in a logged model's name.
        name = re.sub("[/:.%\"']", ",", client.get_run(run_id).info.run_name)
        found = [client.create_logged_model(store.experiment, name, run_id, params=params)]
        client.log_outputs(run_id, [LoggedModelOutput(found[0].model_id, 0)])
    model_id = found[0].model_id
    if found[0].status != "READY":
        with TemporaryDirectory() as folder:
            client.log_model_artifacts(model_id, save_logged(weights, Path(folder), model_id))
        for name in ("train_loss", "test_loss"):
            last = max(client.get_metric_history(run_id, name), key=lambda point: point.step)
            at = last.timestamp, last.step
            client.log_metric(run_id, name, last.value, *at, model_id=model_id)
        client.finalize_logged_model(model_id, "READY")
    return model_id


def save_logged(weights: Path, folder: Path, model_id: str) -> Path:
    """Save a model in MLflow's format; return its folder, in `folder`."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    for name in ("exact", "networks", "vae"):
        ignored = shutil.ignore_patterns(*NOT_IMPORTED)
        shutil.copytree(Path(__file__).parents[2] / name, folder / name, ignore=ignored)
    (folder / weights.stem).mkdir()
    for path in (weights, weights.with_suffix(".json")):
        shutil.copy(path, folder / weights.stem)
    data = Path("data/binarized")
    kind = load_split(data, "test").images.dtype if data.exists() else np.uint8
    images = np.zeros((1, PIXELS), kind)
    outputs = [TensorSpec(np.dtype(kind), *rest, name) for name, (kind, *rest) in OUTPUTS.items()]
    save_model(
        folder / "model",
        loader_module=__name__,
        data_path=folder / weights.stem,
        code_paths=[folder / name for name in ("exact", "networks", "vae")],
        mlflow_model=Model(model_id=model_id),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        signature=ModelSignature(Schema([TensorSpec(images.dtype, (-1, PIXELS))]), Schema(outputs)),
        input_example=images,
    )
    return folder / "model"


def _load_pyfunc(folder: str) -> "Loaded":
    """Load the model in `folder`: MLflow calls the function of this name."""
    from vae.model import load_model

    (weights,) = Path(folder).glob("*.safetensors")
    return Loaded(load_model(weights))


class Loaded:
    """A loaded model: what `mlflow.pyfunc.load_model` calls."""

    def __init__(self, model: "VAE") -> None:
        self.model = model

    def get_raw_model(self) -> "VAE":
        """Return the PyTorch module."""
        return self.model

    def predict(self, images: np.ndarray, params: Any = None) -> dict[str, np.ndarray]:
        """Return `OUTPUTS` of images `(n, 784)` as in data/binarized: the `probabilities` of
        pixels, decoded at the posterior mean, and the scores of `vae.inference.anomaly_scores`."""
        from vae.inference import anomaly_scores, reconstruct

        return {
            "probabilities": reconstruct(self.model, images),
            **anomaly_scores(self.model, images),
        }
