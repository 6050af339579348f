"""Bring MLflow up to date with the results in this folder, each on the run that it belongs to."""

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.cli import UserError
from vae.data import tiled
from vae.files import dvc_files, md5, read_json
from vae.frames import load_frames
from vae.identity import identity
from vae.losses import load_losses
from vae.params import MODELS, check_params, flat, training_params
from vae.scores import ANOMALY_KEYS
from vae.tracking.logged_model import log_model
from vae.tracking.origin import differences, origin
from vae.tracking.pages import IMAGES, run_note
from vae.tracking.store import Store

DATA = Path("data/binarized")
# A tag with the model's checksum, of runs that have all files of their training.
MODEL_TAG = "model.md5"
# The parameters of a run, by their names in MLflow; those that differ from the commit's come with
# them. They are few, because MLflow shows them all above each image, and it offers the first two in
# the alphabet for comparison.
PARAMETERS = {"train.epochs": "epochs", "train.learning_rate": "learning_rate"} | {
    key: key for key in ("model.hidden_sizes", "model.latent_size", "seed", "train.batch_size")
}
# PostgreSQL takes names of 250 characters; a number may follow.
LONGEST_NAME = 240
# Files of plots/ for both runs and for each.
BOTH = ("losses.png", "reproduction.png", "likelihood.png", "kl-by-dimension.png", "samples.png")
ANOMALY = ("kl-divergence.png", "noise.png", "anomalies.png")
RECONSTRUCTION = ("reconstruction.gif", "reconstruction.png", "reconstruction-early.gif")
MANIFOLD = ("manifold.gif", "manifold-early.gif", "manifold.png", "manifold-regions.png")
FIGURES = {"20d": ("originals.png", *RECONSTRUCTION, *ANOMALY), "2d": (*MANIFOLD, "latent.png")}


def sync(models: Path, metrics: Path, plots: Path, report: Path) -> None:
    """Log whatever MLflow lacks of both models' results. Raises UserError."""
    settings = check_params(Path("params.yaml")).tracking
    if not settings.enabled:
        print("tracking: off (tracking.enabled in params.yaml)")
        return
    print("tracking: logging the results to MLflow", flush=True)  # which takes seconds
    results = model_results(metrics)
    store = Store(settings)
    # Two processes at once would make the same run twice.
    with store.errors(), FileLock(".dvc/tmp/sync.lock"):
        for name in MODELS:
            run_id = find_run(store, name, models, plots)
            files = [report, *(plots / figure for figure in (*FIGURES[name], *BOTH))]
            log_results(store, run_id, files, results[name])
    print("tracking: done")


def find_run(store: Store, name: str, models: Path, plots: Path) -> str:
    """Find the run that trained model `name`; return its id. Raises UserError.

    It is the latest one that finished; else the latest one that was killed, or a new one, to either
    of which all files of the training are logged.
    """
    weights = models / f"{name}.safetensors"
    frames, losses = models / f"{name}-epochs.arrow", plots / f"{name}-losses.csv"
    values = locked_params(name, [DATA, weights, weights.with_suffix(".json"), frames, losses])
    splits = [DATA / f"{split}.safetensors" for split in ("train", "test")]
    training_id, digest = identity(values, [md5(path) for path in splits]), md5(weights)
    query = f"tags.identity = '{training_id}'"
    runs = store.client.search_runs([store.experiment], query, order_by=["start_time ASC"])
    # The same training on a GPU has the same identity and other weights.
    ours = [run for run in runs if run.data.tags.get(MODEL_TAG, digest) == digest]
    latest = {run.info.status: run.info.run_id for run in ours}
    if "FINISHED" in latest:
        return latest["FINISHED"]
    tags = {"identity": training_id, "dvc.stage": f"train-{name}", "logged.from": "files"}
    run_id = latest.get("KILLED") or start_run(store, name, values, splits, tags)
    sync_training(store, run_id, name, models, plots)
    print(f"tracking: logged the training of {name} from its files")
    return run_id


def start_run(
    store: Store, name: str, values: dict[str, str], data: Iterable[Path], tags: dict[str, str]
) -> str:
    """Start a run for a training of model `name` on these data files; return its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, ViewType

    tags = {
        **origin(),
        "model": name,
        "process": f"{platform.node()}:{os.getpid()}",
        "mlflow.source.name": sys.argv[0],
        "mlflow.source.type": "LOCAL",
        **tags,
    }
    changed = differences(values, name)
    words = [f"{key.rpartition('.')[2]}={value}" for key, value in changed.items()]
    title = " ".join([name, *words, tags.get("dvc.experiment", "")])[:LONGEST_NAME].strip()
    query = f"tags.model = '{name}'"
    others = store.client.search_runs([store.experiment], query, ViewType.ALL)
    number = 1 + sum(run.info.run_name.partition(" #")[0] == title for run in others)
    title += f" #{number}" if number > 1 else ""
    run_id = store.client.create_run(store.experiment, tags=tags, run_name=title).info.run_id
    names = {key: key for key in changed} | PARAMETERS
    params = [Param(names[key], values[key]) for key in values if key in names]
    store.client.log_batch(run_id, params=params)
    store.client.log_dict(run_id, values, "parameters.json")
    for path in data:
        dataset = Dataset(path.stem, md5(path), "local", json.dumps({"uri": str(path)}))
        context = InputTag("mlflow.data.context", path.stem)
        store.client.log_inputs(run_id, [DatasetInput(dataset, [context])])
    return run_id


def locked_params(name: str, paths: Iterable[Path]) -> dict[str, str]:
    """Return the flat parameters with which model `name` was trained, from dvc.lock.

    Raises UserError unless these files and folders of the training are those of dvc.lock.
    """
    try:
        locked = YAML(typ="safe").load(Path("dvc.lock"))["stages"][f"train-{name}"]
        checksums = {entry["path"]: entry["md5"] for entry in locked["deps"] + locked["outs"]}
        values = locked["params"]["params.yaml"]
    except (OSError, KeyError, TypeError, YAMLError):
        checksums, values = {}, {}
    for path in paths:
        if not path.exists() or _dvc_md5(path) != checksums.get(path.as_posix()):
            raise UserError(f"{path} is not the one of dvc.lock; run `dvc repro`")
    return flat(training_params(check_params(Path("params.yaml"), values), name))


def _dvc_md5(path: Path) -> str:
    """DVC's checksum of a file, or of a folder of files, which is that of a list in JSON."""
    if path.is_file():
        return md5(path)
    entries = [{"md5": md5(file), "relpath": file.name} for file in dvc_files(path)]
    return f"{hashlib.md5(json.dumps(entries).encode()).hexdigest()}.dir"


def sync_training(store: Store, run_id: str, name: str, models: Path, plots: Path) -> None:
    """Log what a run lacks of its training's files, and end it as FINISHED. Raises UserError."""
    rows = load_losses(plots / f"{name}-losses.csv").to_dict("records")
    logged = store.client.get_metric_history(run_id, "test_loss")
    for row in rows[max((point.step for point in logged), default=0) :]:
        log_epoch_losses(store, run_id, row)
    for kind in IMAGES[name]:
        frames = load_frames(models / f"{name}-epochs.arrow", kind)
        images = tiled(frames, math.isqrt(frames.shape[1]) if kind == "manifold" else 1)
        # MLflow shows step 0 first: the trained model's; the other steps are epochs.
        for step, image in enumerate([images[-1], *images]):
            store.client.log_image(run_id, image, key=f"images/{kind}", step=step)
    weights = models / f"{name}.safetensors"
    log_model(store, run_id, weights)
    store.client.set_tag(run_id, MODEL_TAG, md5(weights))
    store.client.set_terminated(run_id, "FINISHED")


def log_epoch_losses(store: Store, run_id: str, row: Mapping[str, float]) -> None:
    """Log an epoch's losses, a row of the losses CSV, in one request."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now, step = get_current_time_millis(), row["epoch"]
    points = [Metric(key, row[key], now, step) for key in row if key != "epoch"]
    store.client.log_batch(run_id, points)


def log_results(
    store: Store, run_id: str, files: Sequence[Path], results: Mapping[str, Any]
) -> None:
    """Log files, a note that links to them, and the results that are new floats, as scores."""
    run = store.client.get_run(run_id)
    # A run that an earlier version logged has no model.
    model_id = next((output.model_id for output in run.outputs.model_outputs), None)
    for path in files:
        store.client.log_artifact(run_id, path, path.parent.name or None)
    store.client.set_tag(run_id, "mlflow.note.content", run_note(store.experiment, run_id, files))
    for name, value in results.items():
        if isinstance(value, float) and run.data.metrics.get(f"scores/{name}") != value:
            store.client.log_metric(run_id, f"scores/{name}", value, model_id=model_id)


def model_results(metrics: Path) -> dict[str, dict[str, Any]]:
    """What the stages measured of each model, by name. Raises UserError."""
    likelihood = read_json(metrics / "likelihood.json", *MODELS)
    anomaly = read_json(metrics / "anomaly.json", *ANOMALY_KEYS)
    results = {name: likelihood[name] | likelihood[name]["decomposition"] for name in MODELS}
    results["20d"] |= anomaly
    for kind, areas in anomaly["kinds"].items():
        results["20d"] |= {f"roc_auc {kind} {score}": areas[score]["roc_auc"] for score in areas}
    return results
