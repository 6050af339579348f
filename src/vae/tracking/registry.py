"""A trained model in MLflow's registry, in PyTorch's export format, which loads without unpickling."""

from pathlib import Path
from typing import TYPE_CHECKING

from vae.data import PIXELS
from vae.model import BernoulliVAE, load_model

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Reconstruction(nn.Module):
    """Images to what the model makes of them."""

    def __init__(self, vae: BernoulliVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities `(batch, 784)` of a pixel being 1, decoded from the posterior means of `images`,
        `(batch, 784)` of 0.0 and 1.0."""
        return torch.sigmoid(self.vae.decode(self.vae.encode(images).mean))


def register(
    client: "MlflowClient", experiment: str, run_id: str, name: str, weights: Path
) -> None:
    """Register the model in `weights` as a version of `vae-NAME`, unless its run has one."""
    if client.search_model_versions(f"run_id = '{run_id}'"):
        return
    import mlflow
    from mlflow.models import infer_signature

    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_experiment(experiment_id=experiment)
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
