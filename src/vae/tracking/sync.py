"""MLflow brought up to date from the files: what the stages made, on the runs it belongs to."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock
from PIL import Image
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vae.cli import UserError
from vae.data import tiled
from vae.files import md5, read_json
from vae.frames import load_frames
from vae.identity import identity
from vae.params import MODELS, check_params, flat, read_params, training_params
from vae.reproduction.published import load_losses
from vae.scores import ANOMALY_KEYS
from vae.tracking.origin import differences, origin
from vae.tracking.store import Store

DATA = Path("data/binarized")
# Set when a run has all of its training's files.
MODEL_TAG = "model.md5"
# What its frames show.
PICTURES = {"20d": ["reconstructions"], "2d": ["reconstructions", "manifold"]}
# What metrics/anomaly.json has beside measurements.
CHOSEN = ("fails_below", "noise_images", "threshold_percentile")
# The figures of each model's run; both runs have the report as well.
BOTH = "losses.png reproduction.png likelihood.png kl-by-dimension.png"
FIGURES = {
    "20d": "originals.png reconstruction.gif reconstruction-early.gif "
    "kl-divergence.png noise.png anomalies.png",
    "2d": "manifold.gif manifold-early.gif manifold.png manifold-regions.png latent.png",
}


def sync(models: Path, metrics: Path, plots: Path, report: Path) -> None:
    """Log what the runs of both models lack; make a run that is missing. Raises UserError."""
    (settings,) = read_params("tracking")
    if not settings.enabled:
        print("tracking: off, by tracking.enabled in params.yaml")
        return
    anomaly = read_json(metrics / "anomaly.json", *ANOMALY_KEYS)
    likelihood = read_json(metrics / "likelihood.json", *MODELS)
    scores = {name: _likelihood_scores(likelihood[name]) for name in MODELS}
    scores["20d"] |= _anomaly_scores(anomaly)
    store = Store(settings)
    # Two of these at once would make the same run twice.
    with store.errors(), FileLock(".dvc/tmp/sync.lock"):
        store.close_killed()
        for name in MODELS:
            run_id = run_of(store, name, models, plots)
            names = f"{FIGURES[name]} {BOTH}".split()
            files = [report, *(plots / figure for figure in names)]
            log_results(store, run_id, files, scores[name])


def run_of(store: Store, name: str, models: Path, plots: Path) -> str:
    """Find the run whose training gave model `name`; return its id. Raises UserError.

    It is the latest that finished; else the latest that was cut short, else a new one, completed.
    """
    weights = models / f"{name}.safetensors"
    frames, losses = models / f"{name}-frames.arrow", plots / f"{name}-losses.csv"
    values = locked_params(name, [DATA, weights, weights.with_suffix(".json"), frames, losses])
    splits = [DATA / f"{split}.safetensors" for split in ("train", "test")]
    known_as, digest = identity(values, [md5(path) for path in splits]), md5(weights)
    query = f"tags.identity = '{known_as}' and tags.model = '{name}'"
    found = store.client.search_runs([store.experiment], query, order_by=["start_time DESC"])
    # Another processor's training has the same identity, and other bits.
    ours = [run for run in found if run.data.tags.get(MODEL_TAG, digest) == digest]
    for run in ours:
        if run.info.status == "FINISHED":
            return run.info.run_id
    cut_short = [run.info.run_id for run in ours if run.info.status == "KILLED"]
    if cut_short:
        run_id = cut_short[0]
    else:
        tags = {"identity": known_as, "dvc.stage": f"train-{name}", "logged.from": "files"}
        run_id = start_training(store, name, values, splits, {**origin(), **tags})
    sync_training(store, run_id, name, models, plots)
    print(f"tracking: the run of {name} is {'completed' if cut_short else 'made'} from the files")
    return run_id


def start_training(
    store: Store, name: str, values: dict[str, str], data: Iterable[Path], tags: dict[str, str]
) -> str:
    """Start a run for a training of model `name` on these data files; return its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    differs = differences(values, name)
    note = f"Training of the {name} model with {', '.join(differs) or 'the committed parameters'}."
    run_name = " ".join([name, *differs, tags.get("dvc.experiment", "")]).strip()
    tags = {"model": name, "mlflow.note.content": note, **tags}
    run_id = store.start_run(run_name, values, tags)
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
    entries = [{"md5": md5(file), "relpath": file.name} for file in sorted(path.iterdir())]
    return f"{hashlib.md5(json.dumps(entries).encode()).hexdigest()}.dir"


def sync_training(store: Store, run_id: str, name: str, models: Path, plots: Path) -> None:
    """Log what a run lacks of its training's files, and end it as FINISHED. Raises UserError."""
    weights, table = models / f"{name}.safetensors", plots / f"{name}-losses.csv"
    rows = load_losses(table).to_dict("records")
    history = {key: store.client.get_metric_history(run_id, key) for key in rows[0]}
    logged = {(key, point.step) for key, points in history.items() for point in points}
    for row in rows:
        store.log_points(run_id, row, logged)
    for path in (weights, weights.with_suffix(".json"), table):
        store.client.log_artifact(run_id, path, "model")
    for kind in PICTURES[name]:
        frames = load_frames(models / f"{name}-frames.arrow", kind)
        log_pictures(store, run_id, kind, frames[:: (len(frames) - 1) // len(rows)])
    store.client.set_tag(run_id, MODEL_TAG, md5(weights))
    store.client.set_terminated(run_id, "FINISHED")


def log_pictures(store: Store, run_id: str, kind: str, frames: np.ndarray) -> None:
    """Log a picture of each frame for MLflow's image grid, its epoch as the step; 0 is before.

    Under the file names of `MlflowClient.log_image`, which takes three times as long; but without
    its time of day and random number: a picture that is logged again replaces itself.
    """
    rows = math.isqrt(frames.shape[1]) if kind == "manifold" else 1
    with TemporaryDirectory() as folder:
        for step, pixels in enumerate(tiled(frames, rows)):
            picture = Image.fromarray(pixels)
            stem = f"{folder}/pictures~{kind}+step+{step}+timestamp+{step}+epoch-{step}"
            picture.save(f"{stem}.png", compress_level=1)
            small = picture.reduce(max(1, picture.width // 256))
            small.save(f"{stem}+compressed.webp", method=0)
        store.client.log_artifacts(run_id, folder, "images")
    store.client.set_tag(run_id, "mlflow.loggedImages", "True")


def log_results(
    store: Store, run_id: str, files: Iterable[Path], scores: Mapping[str, float]
) -> None:
    """Log files, to which the run's note then links, and scores that are new. Raises UserError."""
    run = store.client.get_run(run_id)
    lines = [run.data.tags["mlflow.note.content"].partition("\n")[0], "", "Figures and report:", ""]
    for path in files:
        if not path.exists():
            raise UserError(f"there is no {path}; run `dvc repro`")
        store.client.log_artifact(run_id, path, path.parent.name or None)
        place = f"#/experiments/{store.experiment}/runs/{run_id}/artifacts/{path}"
        lines.append(f"- [{path.name}]({place})")
    store.client.set_tag(run_id, "mlflow.note.content", "\n".join(lines))
    for name, value in scores.items():
        if run.data.metrics.get(f"scores/{name}") != value:
            store.client.log_metric(run_id, f"scores/{name}", value)


def _likelihood_scores(found: Mapping) -> dict[str, float]:
    """The likelihood stage's results for a model under flat names."""
    parts = {name: found["decomposition"][name] for name in ("mutual_information", "aggregated_kl")}
    names = ("test_log_likelihood", "standard_error", "effective_samples")
    return {**{name: found[name] for name in names}, **parts}


def _anomaly_scores(anomaly: Mapping) -> dict[str, float]:
    """The anomaly stage's results under flat names."""
    measured = {name: value for name, value in anomaly.items() if name not in CHOSEN}
    numbers = {name: value for name, value in measured.items() if isinstance(value, float)}
    for kind, scores in anomaly["kinds"].items():
        numbers |= {f"roc_auc {kind} {name}": found["roc_auc"] for name, found in scores.items()}
    return numbers
