"""The parameters in params.yaml, which explains them, as frozen typed objects."""

import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from vae.typed_yaml import Group, read_yaml

DATASETS = ("mnist", "fashion-mnist", "kmnist", "digits")
# Each model has a group train-NAME.
MODELS = ("20d", "2d")
POST_NETWORK = "vae.model.BernoulliVAE"

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
# YAML has lists; strict types would require a tuple.
LayerSizes = Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)]


class Download(Group):
    """The data set and its mirrors; `pause` and `timeout` are in seconds."""

    dataset: str
    mirrors: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
    attempts: Annotated[int, Field(ge=1, le=100)]
    pause: Annotated[float, Field(ge=0, le=3600)]
    timeout: Annotated[float, Field(gt=0, le=3600)]

    @field_validator("dataset")
    @classmethod
    def _known(cls, name: str) -> str:
        path = PurePosixPath(name)  # drops the slash that completion by Tab adds
        own = PurePosixPath("data/own") in path.parents and ".." not in path.parts
        if own or name in DATASETS:
            return str(path)
        raise ValueError(f"it should be {', '.join(DATASETS)}, or data/own/ and a name there")


class Binarize(Group):
    """What becomes of gray pixels."""

    mode: Literal["threshold", "sample", "none"]
    threshold: Annotated[int, Field(ge=1, le=255)]


class Figures(Group):
    """What training records for the figures; `images` are indices, `interval` is in batches."""

    images: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    interval: Count
    gray_levels: Annotated[int, Field(ge=2, le=256)]
    grid_size: Annotated[int, Field(ge=2, le=100)]
    grid_quantiles: Annotated[tuple[Share, Share], Field(strict=False)]

    @field_validator("grid_quantiles")
    @classmethod
    def _ascending(cls, quantiles: tuple[float, float]) -> tuple[float, float]:
        if quantiles[0] >= quantiles[1]:
            raise ValueError("the first must be below the second")
        return quantiles


class Train(Group):
    """How both models are trained."""

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    adam_betas: Annotated[tuple[Beta, Beta], Field(strict=False)]
    adam_epsilon: Annotated[float, Field(gt=0, le=1)]
    beta: Annotated[float, Field(ge=0, le=1000)]
    arithmetic: Literal["exact", "torch"]
    device: Literal["cpu", "cuda"]


class Architecture(Group):
    """A VAE's class and sizes; without `decoder_hidden_sizes` the decoder mirrors the encoder."""

    network: str = POST_NETWORK
    hidden_sizes: LayerSizes
    latent_size: Annotated[int, Field(ge=1, le=100_000)]
    decoder_hidden_sizes: LayerSizes | None = None

    @field_validator("network")
    @classmethod
    def _named(cls, name: str) -> str:
        own = re.fullmatch(r"networks(\.[A-Za-z_]\w*){2,}", name)
        if own or name == POST_NETWORK:
            return name
        raise ValueError(
            f"it should be {POST_NETWORK}, or a class in src/networks: networks.FILE.CLASS"
        )


class Model(Architecture):
    """A model to train, and the model that used the random stream before it, if any."""

    preceded_by: Architecture | None = None


class PlaneModel(Model):
    """A model with a 2-d latent space, whose manifold can be drawn."""

    latent_size: Literal[2]


class Animation(Group):
    """A GIF: every `every`-th of the `first` frames (null: all), each for `milliseconds`."""

    first: Count | None
    every: Count
    milliseconds: Annotated[int, Field(ge=20, le=60_000, multiple_of=10)]


class Visualize(Group):
    """How frames and models are drawn."""

    whole: Animation
    early_reconstruction: Animation
    early_manifold: Animation
    image_scale: Annotated[int, Field(ge=1, le=20)]
    neighbours: Count


class Anomaly(Group):
    """How anomalies are detected."""

    batch_size: Count
    threshold_percentile: Annotated[float, Field(gt=0, lt=100)]
    noise_images: Annotated[int, Field(ge=1, le=1_000_000)]


class Likelihood(Group):
    """How many test images and samples the likelihood is estimated from."""

    images: Annotated[int, Field(ge=2, le=1_000_000_000)]  # one alone has no standard error
    samples: Annotated[int, Field(ge=1, le=1_000_000)]


class Tracking(Group):
    """Whether results are logged to MLflow, and to which experiment."""

    enabled: bool
    experiment: Annotated[str, Field(min_length=1, max_length=250)]


class Params(Group):
    """All of params.yaml."""

    # NumPy's legacy generator, which draws the noise image, takes 32 bits.
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    download: Download
    binarize: Binarize
    figures: Figures
    train: Train
    train_20d: Annotated[Model, Field(alias="train-20d")]
    train_2d: Annotated[PlaneModel, Field(alias="train-2d")]
    visualize: Visualize
    anomaly: Anomaly
    likelihood: Likelihood
    tracking: Tracking


def read_params(*groups: str, path: Path = Path("params.yaml")) -> list[Any]:
    """Check all of `path` and return the groups of these names, in this order. Raises UserError."""
    params = check_params(path)
    return [attrgetter(group.replace("-", "_"))(params) for group in groups]


def check_params(path: Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read and check `path`; `overrides` are other values, as `{"train.epochs": 2}`.

    Raises UserError with every mistake: its key, its value and what is allowed.
    """
    return read_yaml(path, Params, overrides)


def training_params(params: Params, name: str) -> dict[str, Any]:
    """Return the parameters of the training of model `name`, its own group as `model`."""
    shared = {key: getattr(params, key) for key in ("seed", "figures", "train")}
    return {**shared, "model": getattr(params, f"train_{name}")}


def flat(params: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as text by name; those of a group are named `group.key`."""
    found = {}
    for name, value in params.items():
        if isinstance(value, BaseModel):
            found |= {f"{name}.{key}": v for key, v in value.model_dump().items()}
        else:
            found[name] = value
    return {key: str(list(v) if isinstance(v, tuple) else v) for key, v in found.items()}
