"""A trained model as MLflow's logged model: `mlflow.pyfunc.load_model` loads it without pickle.

The logged model contains the code that it needs, so it can be used without this repository.
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


def log_model(store: "Store", run_id: str, weights: Path) -> None:
    """Log weights, architecture, code and last losses as the run's logged model, if missing."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
    found = client.search_logged_models([store.experiment], f"source_run_id = '{run_id}'")
    if found:
        model = found[0]
    else:
        params = {key: str(value) for key, value in read_json(weights.with_suffix(".json")).items()}
        # MLflow allows none of these characters in a logged model's name.
        name = re.sub("[/:.%\"']", ",", client.get_run(run_id).info.run_name)
        model = client.create_logged_model(store.experiment, name, run_id, params=params)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    if model.status == "READY":
        return
    with TemporaryDirectory() as folder:
        path = save_logged(weights, Path(folder), model.model_id)
        client.log_model_artifacts(model.model_id, path)
    for name in ("train_loss", "test_loss"):
        last = max(client.get_metric_history(run_id, name), key=lambda point: point.step)
        at = last.timestamp, last.step
        client.log_metric(run_id, name, last.value, *at, model_id=model.model_id)
    client.finalize_logged_model(model.model_id, "READY")


def save_logged(weights: Path, folder: Path, model_id: str) -> Path:
    """Save a model in MLflow's format below `folder`; return its path."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    data = folder / weights.stem
    data.mkdir()
    for path in (weights, weights.with_suffix(".json")):
        shutil.copy(path, data)
    outputs = [TensorSpec(np.dtype("float32"), (-1, PIXELS), "probabilities")]
    outputs += [TensorSpec(np.dtype("float64"), (-1,), name) for name in SCORE_NAMES]
    binarized = Path("data/binarized")
    kind = load_split(binarized, "test").images.dtype if binarized.exists() else np.uint8
    inputs = [TensorSpec(np.dtype(kind), (-1, PIXELS))]
    src = Path(__file__).parents[2]
    save_model(
        folder / "model",
        loader_module=__name__,
        data_path=data,
        code_paths=[src / name for name in ("exact", "networks", "vae")],
        mlflow_model=Model(model_id=model_id),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        signature=ModelSignature(Schema(inputs), Schema(outputs)),
        input_example=np.zeros((1, PIXELS), kind),
    )
    return folder / "model"


def _load_pyfunc(folder: str) -> "LoadedModel":
    """Load the model from `folder`. MLflow calls a function of this name."""
    from vae.model import load_model

    (weights,) = Path(folder).glob("*.safetensors")
    return LoadedModel(load_model(weights))


class LoadedModel:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, model: "VAE") -> None:
        self.model = model

    def get_raw_model(self) -> "VAE":
        """Return the PyTorch module."""
        return self.model

    def predict(self, images: np.ndarray, params: Any = None) -> dict[str, np.ndarray]:
        """Reconstruct and score images `(n, 784)`, as in data/binarized.

        `probabilities` `(n, 784)` are decoded at the posterior mean; the scores `(n,)`, in nats,
        are those of `vae.inference.anomaly_scores`.
        """
        from vae.inference import anomaly_scores, reconstruct

        probabilities = reconstruct(self.model, images)
        return {"probabilities": probabilities, **anomaly_scores(self.model, images)}
