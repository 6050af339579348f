"""MLflow mirrors a training: a run for it, written to while it trains and completed from its files.

Nothing that is written here is read by a stage, so turning tracking off changes no output.
"""

import csv
import math
import os
import platform
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vae.cli import UserError
from vae.data import IMAGE_SIDE
from vae.files import md5
from vae.params import read_params
from vae.tracking.client import close_killed, connect, trouble
from vae.tracking.origin import differences, origin

import numpy as np

if TYPE_CHECKING:
    from vae.training import Epoch

    from mlflow import MlflowClient

MODEL_TAG = "model.md5"
# The gray frames of each kind before training and after every epoch, `(epochs + 1, pictures, 784)` uint8.
Pictures = Mapping[str, np.ndarray]


class MlflowRun:
    """A run in MLflow. A store that is lost does not stop the training: it is told once, then left alone."""

    def __init__(self, client: "MlflowClient", run_id: str, name: str) -> None:
        self.client = client
        self.run_id = run_id
        self.name = name
        self.lost = False

    def log_epoch(self, epoch: "Epoch") -> None:
        """Log an epoch's losses, with its number as the step."""
        if not self.lost:
            self._attempt(log_points, [epoch.row()])

    def finish(self, models: Path, plots: Path, pictures: Pictures) -> None:
        """Log what the training has written to these folders, and pictures of its course."""
        was_lost = self.lost
        self._attempt(complete, self.name, models, plots, pictures)
        if was_lost and not self.lost:
            print("tracking: the MLflow store is back, and what it had missed is logged")

    def end(self, status: str) -> None:
        """Leave the run with this status."""
        if not self.lost:
            self._attempt(lambda client, run_id: client.set_terminated(run_id, status))

    def _attempt(self, log: Callable[..., None], *arguments: Any) -> None:
        try:
            with trouble(self.client.tracking_uri):
                log(self.client, self.run_id, *arguments)
            self.lost = False
        except UserError as error:
            if not self.lost:
                print(f"tracking: {error}. The training goes on", flush=True)
            self.lost = True


@contextmanager
def live_run(
    name: str, values: Mapping[str, str], data: Iterable[Path], device: str, identity: str
) -> Iterator[Callable[["Epoch"], None]]:
    """A run for the training of model `name` with these flat parameters; yields what logs an epoch."""
    with track_training(name, values, data, device) as run:
        yield run.log_epoch if run else lambda epoch: None
        if run:
            run.finish(Path("models"), Path("plots"), {})


@contextmanager
def track_training(
    name: str, values: Mapping[str, str], data: Iterable[Path], device: str
) -> Iterator[MlflowRun | None]:
    """A run for the training of model `name`: its parameters, groups as `group.key`, its data, its origin.

    It ends as FINISHED, FAILED or, on Ctrl-C, KILLED. None with tracking off. Raises UserError when the
    store cannot be used to begin with.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        yield None
        return
    client, experiment = connect(settings)
    tags = {**origin(), "device": device}
    with trouble(client.tracking_uri):
        close_killed(client, experiment)
        run_id = begin_run(client, experiment, name, values, tags)
        client.log_inputs(run_id, [dataset(path.stem, md5(path), path) for path in data])
    run = MlflowRun(client, run_id, name)
    try:
        with _system_metrics(settings.system_metrics, client, run_id):
            yield run
    except BaseException as error:
        run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run.end("FINISHED")


def begin_run(
    client: "MlflowClient",
    experiment: str,
    name: str,
    values: Mapping[str, str],
    tags: Mapping[str, str],
) -> str:
    """A new run for a training of model `name` with these flat parameters, named by what they differ in."""
    from mlflow.entities import Param

    differs = differences(values, name)
    note = f"Training of the {name} model with {', '.join(differs) or 'the committed parameters'}."
    if "logged.from" in tags:
        note += " Logged afterwards from its files: the duration is that of the logging."
    tags = {
        "process": f"{platform.node()}:{os.getpid()}",
        "mlflow.source.name": "src/train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": note,
        "model": name,
        **tags,
    }
    run_name = " ".join(filter(None, (name, *differs, tags.get("dvc.experiment"))))
    run_id = client.create_run(experiment, tags=tags, run_name=run_name).info.run_id
    client.log_batch(run_id, params=[Param(key, value) for key, value in values.items()])
    return run_id


def read_losses(plots: Path, name: str) -> list[dict[str, float]]:
    """The rows of a model's losses CSV, to the last bit. Raises UserError."""
    path = plots / f"{name}-losses.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None


def log_points(
    client: "MlflowClient", run_id: str, rows: Iterable[Mapping[str, Any]], logged: Container = ()
) -> None:
    """Log the numbers of rows by epoch, which is the step, but for the `logged` pairs of metric and step."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    for row in rows:
        step = int(row["epoch"])
        points = [
            Metric(key, value, now, step)
            for key, value in row.items()
            if key != "epoch" and isinstance(value, float) and math.isfinite(value)
        ]
        if missing := [point for point in points if (point.key, step) not in logged]:
            client.log_batch(run_id, metrics=missing)


def complete(
    client: "MlflowClient", run_id: str, name: str, models: Path, plots: Path, pictures: Pictures
) -> None:
    """Log from a training's files what its run lacks; at last, as a tag, the model's fingerprint."""
    rows = read_losses(plots, name)
    logged = {
        (key, point.step) for key in rows[-1] for point in client.get_metric_history(run_id, key)
    }
    log_points(client, run_id, rows, logged)
    weights = models / f"{name}.safetensors"
    for path in (weights, weights.with_suffix(".json"), plots / f"{name}-losses.csv"):
        client.log_artifact(run_id, path, artifact_path="model")
    log_pictures(client, run_id, pictures)
    client.set_tag(run_id, MODEL_TAG, md5(weights))


def log_pictures(client: "MlflowClient", run_id: str, pictures: Pictures) -> None:
    """Log pictures for MLflow's image grid, with their epoch as the step.

    Under the file names of `MlflowClient.log_image`, which writes and tags them one by one and takes three
    times as long; without its time of day and random number, so that a picture logged again replaces itself.
    """
    from PIL import Image

    with TemporaryDirectory() as folder:
        for key, frames in pictures.items():
            for step, frame in enumerate(frames):
                rows = math.isqrt(len(frame)) if key == "manifold" else 1
                tiles = frame.reshape(rows, -1, IMAGE_SIDE, IMAGE_SIDE).swapaxes(1, 2)
                picture = Image.fromarray(tiles.reshape(rows * IMAGE_SIDE, -1))
                stem = f"{folder}/pictures~{key}+step+{step}+timestamp+{step}+epoch-{step}"
                picture.save(f"{stem}.png", compress_level=1)
                picture.reduce(max(1, picture.width // 256)).save(
                    f"{stem}+compressed.webp", method=0
                )
        client.log_artifacts(run_id, folder, "images")
    client.set_tag(run_id, "mlflow.loggedImages", "True")


def dataset(name: str, digest: str, path: Path) -> Any:
    """An input of a run: data with their MD5 sum as digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = f'{{"uri": "{path.as_posix()}"}}'
    dataset = Dataset(name=name, digest=digest, source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", name)])


@contextmanager
def _system_metrics(wanted: bool, client: "MlflowClient", run_id: str) -> Iterator[None]:
    """Meanwhile, sample processor, memory, disk, network and GPU every two seconds, if that is wanted."""
    if not wanted:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=2, tracking_uri=client.tracking_uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
