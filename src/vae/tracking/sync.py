"""MLflow brought up to date from the files: what the stages made, on the runs it belongs to."""

import hashlib
import json
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
from vae.files import dvc_files, md5, read_json
from vae.identity import identity
from vae.losses import load_losses
from vae.params import MODELS, check_params, flat, read_params, training_params
from vae.scores import ANOMALY_KEYS
from vae.tracking.logged_model import log_model
from vae.tracking.origin import differences, origin
from vae.tracking.pages import run_note
from vae.tracking.pictures import log_pictures
from vae.tracking.store import Store

DATA = Path("data/binarized")
# Set when a run has all of its training's files.
MODEL_TAG = "model.md5"
# A run's parameters by their names in MLflow, beside those that are not as committed. They are few,
# since MLflow shows them all above each picture, and the two that it is to offer first come first
# in the alphabet.
COMPARED = {"train.epochs": "epochs", "train.learning_rate": "learning_rate"} | {
    key: key for key in ("model.hidden_sizes", "model.latent_size", "seed", "train.batch_size")
}
# Characters of a run's name before its number: PostgreSQL takes 250 in all.
LONGEST_NAME = 240
# What its frames show.
PICTURES = {"20d": ["reconstructions"], "2d": ["reconstructions", "manifold"]}
# What their results have beside measurements, though it is no whole number.
CHOSEN = ("fails_below", "threshold_percentile", "most_information")
# The figures of each model's run; both runs have the report as well.
BOTH = ("losses.png", "reproduction.png", "likelihood.png", "kl-by-dimension.png", "samples.png")
ANOMALY = ("kl-divergence.png", "noise.png", "anomalies.png")
RECONSTRUCTION = ("reconstruction.gif", "reconstruction.png", "reconstruction-early.gif")
MANIFOLD = ("manifold.gif", "manifold-early.gif", "manifold.png", "manifold-regions.png")
FIGURES = {"20d": ("originals.png", *RECONSTRUCTION, *ANOMALY), "2d": (*MANIFOLD, "latent.png")}


def sync(models: Path, metrics: Path, plots: Path, report: Path) -> None:
    """Log what the runs of both models lack; make a run that is missing. Raises UserError."""
    (settings,) = read_params("tracking")
    if not settings.enabled:
        print("tracking: off, by tracking.enabled in params.yaml")
        return
    scores = model_scores(metrics)
    store = Store(settings)
    # Two of these at once would make the same run twice.
    with store.errors(), FileLock(".dvc/tmp/sync.lock"):
        for name in MODELS:
            run_id = run_of(store, name, models, plots)
            files = [report, *(plots / figure for figure in (*FIGURES[name], *BOTH))]
            model_id = log_model(store, run_id, models / f"{name}.safetensors")
            log_results(store, run_id, model_id, files, scores[name])


def run_of(store: Store, name: str, models: Path, plots: Path) -> str:
    """Find the run whose training gave model `name`; return its id. Raises UserError.

    It is the latest that finished; else the latest that was cut short, else a new one, completed.
    """
    weights = models / f"{name}.safetensors"
    frames, losses = models / f"{name}-epochs.arrow", plots / f"{name}-losses.csv"
    values = locked_params(name, [DATA, weights, weights.with_suffix(".json"), frames, losses])
    splits = [DATA / f"{split}.safetensors" for split in ("train", "test")]
    known_as, digest = identity(values, [md5(path) for path in splits]), md5(weights)
    query = f"tags.identity = '{known_as}'"
    found = store.client.search_runs([store.experiment], query, order_by=["start_time DESC"])
    # Another processor's training has the same identity, and other bits.
    ours = [run.info for run in found if run.data.tags.get(MODEL_TAG, digest) == digest]
    finished = [run.run_id for run in ours if run.status == "FINISHED"]
    if finished:
        return finished[0]
    cut_short = [run.run_id for run in ours if run.status == "KILLED"]
    tags = {"identity": known_as, "dvc.stage": f"train-{name}", "logged.from": "files"}
    run_id = cut_short[0] if cut_short else start_training(store, name, values, splits, tags)
    sync_training(store, run_id, name, models, plots)
    print(f"tracking: the run of {name} is {'completed' if cut_short else 'made'} from the files")
    return run_id


def start_training(
    store: Store, name: str, values: dict[str, str], data: Iterable[Path], tags: dict[str, str]
) -> str:
    """Start a run for a training of model `name` on these data files; return its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, ViewType

    differs = differences(values, name)
    words = [f"{key.rpartition('.')[2]}={value}" for key, value in differs.items()]
    tags = {
        **origin(),
        "model": name,
        "process": f"{platform.node()}:{os.getpid()}",
        "mlflow.source.name": sys.argv[0],
        "mlflow.source.type": "LOCAL",
        **tags,
    }
    title = " ".join([name, *words, tags.get("dvc.experiment", "")]).strip()
    title = title if len(title) <= LONGEST_NAME else f"{title[: LONGEST_NAME - 3]}..."
    of_model = f"tags.model = '{name}'"
    others = store.client.search_runs([store.experiment], of_model, ViewType.ALL)
    same = [run for run in others if run.info.run_name.partition(" #")[0] == title]
    number = f" #{len(same) + 1}" if same else ""
    run = store.client.create_run(store.experiment, tags=tags, run_name=title + number)
    run_id = run.info.run_id
    compared = {key: key for key in differs} | COMPARED
    params = [Param(compared[key], values[key]) for key in values if key in compared]
    store.client.log_batch(run_id, params=params)
    store.client.log_dict(run_id, values, "parameters.json")
    for path in data:
        dataset = Dataset(path.stem, md5(path), "local", json.dumps({"uri": str(path)}))
        context = InputTag("mlflow.data.context", path.stem)
        store.client.log_inputs(run_id, [DatasetInput(dataset, [context])])
    return run_id


def locked_params(name: str, paths: Iterable[Path]) -> dict[str, str]:
    """The flat parameters of model `name`'s training, to which dvc.lock says that these files and
    folders belong as they are. Raises UserError."""
    try:
        locked = YAML(typ="safe").load(Path("dvc.lock"))["stages"][f"train-{name}"]
        sums = {entry["path"]: entry["md5"] for entry in locked["deps"] + locked["outs"]}
        values = locked["params"]["params.yaml"]
    except (OSError, KeyError, TypeError, YAMLError):
        sums, values = {}, {}
    for path in paths:
        if not path.exists() or _dvc_md5(path) != sums.get(path.as_posix()):
            raise UserError(f"dvc.lock knows no training with {path} as it is; run `dvc repro`")
    return flat(training_params(check_params(Path("params.yaml"), values), name))


def _dvc_md5(path: Path) -> str:
    """DVC's MD5 sum of a file, or of a folder of files: that of its list."""
    if path.is_file():
        return md5(path)
    entries = [{"md5": md5(file), "relpath": file.name} for file in dvc_files(path)]
    return f"{hashlib.md5(json.dumps(entries).encode()).hexdigest()}.dir"


def sync_training(store: Store, run_id: str, name: str, models: Path, plots: Path) -> None:
    """Log what a run lacks of its training's files, and end it as FINISHED. Raises UserError."""
    weights = models / f"{name}.safetensors"
    rows = load_losses(plots / f"{name}-losses.csv").to_dict("records")
    logged = store.client.get_metric_history(run_id, "test_loss")
    for row in rows[max((point.step for point in logged), default=0) :]:
        log_points(store, run_id, row)
    log_pictures(store, run_id, models / f"{name}-epochs.arrow", PICTURES[name])
    log_model(store, run_id, weights)
    store.client.set_tag(run_id, MODEL_TAG, md5(weights))
    store.client.set_terminated(run_id, "FINISHED")


def log_points(store: Store, run_id: str, row: Mapping[str, float]) -> None:
    """Log an epoch's losses, a row of the losses CSV, all at once."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now, step = get_current_time_millis(), row["epoch"]
    points = [Metric(key, row[key], now, step) for key in row if key != "epoch"]
    store.client.log_batch(run_id, points)


def log_results(
    store: Store, run_id: str, model_id: str, files: Sequence[Path], scores: Mapping[str, float]
) -> None:
    """Log files, to which the run's note then links, and scores that are new, of the run and of its
    logged model. Raises UserError."""
    run = store.client.get_run(run_id)
    for path in files:
        store.client.log_artifact(run_id, path, path.parent.name or None)
    store.client.set_tag(run_id, "mlflow.note.content", run_note(store.experiment, run_id, files))
    for name, value in scores.items():
        if run.data.metrics.get(f"scores/{name}") != value:
            store.client.log_metric(run_id, f"scores/{name}", value, model_id=model_id)


def model_scores(metrics: Path) -> dict[str, dict[str, float]]:
    """What the stages measured of each model, by name. Raises UserError."""
    likelihood = read_json(metrics / "likelihood.json", *MODELS)
    anomaly = read_json(metrics / "anomaly.json", *ANOMALY_KEYS)
    scores = {}
    for name in MODELS:
        scores[name] = _measured(likelihood[name]) | _measured(likelihood[name]["decomposition"])
    scores["20d"] |= _measured(anomaly)
    for kind, areas in anomaly["kinds"].items():
        scores["20d"] |= {f"roc_auc {kind} {score}": areas[score]["roc_auc"] for score in areas}
    return scores


def _measured(found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a stage's results, but for those that it was given."""
    numbers = {key: value for key, value in found.items() if isinstance(value, float)}
    return {key: value for key, value in numbers.items() if key not in CHOSEN}
