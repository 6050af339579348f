"""A trained model as MLflow's logged model, which `mlflow.pyfunc.load_model` loads without pickle.

It has the code of src/ beside its weights, and so needs no checkout.
"""

import re
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.data import PIXELS
from vae.files import read_json

if TYPE_CHECKING:
    from torch import nn

    from vae.tracking.store import Store

# What its code imports and MLflow does not.
REQUIREMENTS = ("ruamel.yaml", "safetensors", "torch")
CODE = [str(Path(__file__).parents[2] / name) for name in ("vae",)]
OUTPUTS = {"probabilities": (-1, PIXELS)} | dict.fromkeys(
    ("kl", "reconstruction", "negative_elbo"), (-1,)
)


def log_model(store: "Store", run_id: str, weights: Path) -> str:
    """Log weights and architecture as the run's logged model, which it has once, with the run's
    last losses; return its id."""
    from mlflow.entities import LoggedModelOutput, Metric

    of_run = f"source_run_id = '{run_id}'"
    found = list(store.client.search_logged_models([store.experiment], of_run))
    if not found:
        params = {key: str(value) for key, value in read_json(weights.with_suffix(".json")).items()}
        # MLflow allows none of these in a logged model's name.
        name = re.sub("[/:.%\"']", ",", store.client.get_run(run_id).info.run_name)
        found = [store.client.create_logged_model(store.experiment, name, run_id, params=params)]
        store.client.log_outputs(run_id, [LoggedModelOutput(found[0].model_id, 0)])
    model_id = found[0].model_id
    if found[0].status != "READY":
        with TemporaryDirectory() as folder:
            save(Path(folder), weights, run_id, model_id)
            store.client.log_model_artifacts(model_id, f"{folder}/model")
        last = [
            store.client.get_metric_history(run_id, f"{name}_loss")[-1:]
            for name in ("train", "test")
        ]
        metrics = [Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id) for [m] in last]
        store.client.log_batch(run_id, metrics)
        store.client.finalize_logged_model(model_id, "READY")
    return model_id


def save(folder: Path, weights: Path, run_id: str, model_id: str) -> None:
    """Save a model in MLflow's format as `folder`/model."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    data = folder / weights.stem
    data.mkdir()
    for path in (weights, weights.with_suffix(".json")):
        shutil.copy(path, data)
    images = np.zeros((1, PIXELS), np.uint8)
    inputs = Schema([TensorSpec(images.dtype, (-1, PIXELS))])
    outputs = Schema([TensorSpec(np.dtype("float32"), OUTPUTS[name], name) for name in OUTPUTS])
    save_model(
        folder / "model",
        loader_module=__name__,
        data_path=data,
        code_paths=CODE,
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        signature=ModelSignature(inputs, outputs),
        input_example=images,
    )


class LoadedModel:
    """What `mlflow.pyfunc.load_model` gives: its `predict` takes images `(n, 784)`, uint8 of zeros
    and ones, and returns arrays by name.

    `probabilities` `(n, 784)` of the pixels, decoded at the posterior mean, and scores `(n,)` in
    nats, the higher the stranger: `kl`, `reconstruction` and their sum, `negative_elbo`.
    """

    def __init__(self, model: "nn.Module") -> None:
        self.model = model

    def predict(self, images: np.ndarray, params: Any = None) -> dict[str, np.ndarray]:
        return _outputs(self.model, images)

    def get_raw_model(self) -> "nn.Module":
        """Return the PyTorch module, for `PyFuncModel.get_raw_model`."""
        return self.model


def _load_pyfunc(folder: str) -> LoadedModel:
    """Load the model in `folder`: MLflow calls the function of this name."""
    from vae.model import load_model

    (weights,) = Path(folder).glob("*.safetensors")
    return LoadedModel(load_model(weights))


def _outputs(model: "nn.Module", images: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    from vae.model import objective_terms

    pixels = torch.from_numpy(images).to(torch.float32)
    posterior = model.encode(pixels)
    logits = model.decode(posterior.mean)
    reconstruction, kl = objective_terms(logits, posterior, pixels).numpy()
    scores = {"kl": kl, "reconstruction": reconstruction, "negative_elbo": reconstruction + kl}
    return {"probabilities": logits.sigmoid().numpy(), **scores}
