"""A trained model in MLflow's registry, in PyTorch's export format: it holds no pickled code."""

from pathlib import Path

from vae.data import PIXELS
from vae.model import BernoulliVAE, load_model
from vae.tracking.store import Store

import mlflow
import torch
from mlflow.models import infer_signature
from torch import Tensor, nn


class Reconstruction(nn.Module):
    """Images to what the model makes of them."""

    def __init__(self, vae: BernoulliVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        """Decode the posterior means of `images`, `(batch, 784)` of 0.0 and 1.0, to probabilities
        of a pixel being 1, `(batch, 784)`."""
        return torch.sigmoid(self.vae.decode(self.vae.encode(images).mean))


def register(store: Store, run_id: str, name: str, weights: Path) -> None:
    """Register the model in `weights` as a version of `vae-NAME`, unless its run has one."""
    if store.client.search_model_versions(f"run_id = '{run_id}'"):
        return
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_experiment(experiment_id=store.experiment)
    model = Reconstruction(load_model(weights))
    # Two of them: the number of images of a batch is then left open in the exported model.
    images = torch.zeros(2, PIXELS)
    mlflow.pytorch.log_model(
        model,
        name=f"vae-{name}",
        registered_model_name=f"vae-{name}",
        serialization_format="pt2",
        signature=infer_signature(images.numpy(), model(images).numpy()),
        input_example=images.numpy(),
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        run_id=run_id,
    )
