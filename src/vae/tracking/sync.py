"""MLflow brought up to date from the files: what the stages made, on the runs it belongs to."""

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae.cli import UserError
from vae.files import md5, read_json
from vae.params import MODELS, check_params, flat, read_params, training_params
from vae.tracking.client import close_killed, connect, trouble
from vae.tracking.live import MODEL_TAG, begin_run, complete, dataset, read_losses
from vae.tracking.origin import origin

from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# The figures of each model's run, beside the report and the losses, which go to both.
FIGURES = {
    "20d": "originals.png reconstruction.gif reconstruction-early.gif "
    "kl-divergence.png noise.png anomalies.png",
    "2d": "manifold.gif manifold-early.gif manifold.png manifold-regions.png latent.png",
}


def mirror(models: Path, metrics: Path, plots: Path, report: Path) -> None:
    """Log what the runs that trained the two models lack; a run that is missing is made. Raises UserError."""
    (settings,) = read_params("tracking")
    if not settings.enabled:
        print("tracking: off, by tracking.enabled in params.yaml")
        return
    anomaly, likelihood = (
        read_json(metrics / f"{name}.json") for name in ("anomaly", "likelihood")
    )
    scores = {"20d": {**numbers(anomaly), **likelihood["20d"]}, "2d": likelihood["2d"]}
    client, experiment = connect(settings)
    lock = Path(".dvc/tmp/track.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Another of these at once would make the same runs.
    with trouble(client.tracking_uri):
        close_killed(client, experiment)
        for name in MODELS:
            run_id = run_of(client, experiment, name, models, plots)
            names = f"losses.png reproduction.png {FIGURES[name]}".split()
            log_results(
                client, run_id, [report, *(plots / figure for figure in names)], scores[name]
            )
            if settings.register_models:
                from vae.tracking.registry import register

                register(client, experiment, run_id, name, models / f"{name}.safetensors")


def run_of(client: "MlflowClient", experiment: str, name: str, models: Path, plots: Path) -> str:
    """The id of the run that trained model `name` as it is now, completed from the files where it is not.

    That is the latest with the model's fingerprint and parameters; else the latest that a kill or an outage
    cut short and whose losses are those of the table so far; else a new one. Raises UserError.
    """
    weights = models / f"{name}.safetensors"
    locked = read_lock(name, weights, plots / f"{name}-losses.csv")
    digest = md5(weights)
    values = flat(
        training_params(check_params(Path("params.yaml"), locked["params"]["params.yaml"]), name)
    )
    rows = read_losses(plots, name)

    def is_it(run: "Run") -> bool:
        if run.data.params != values or run.data.tags.get(MODEL_TAG, digest) != digest:
            return False
        return MODEL_TAG in run.data.tags or (
            run.info.status == "KILLED"
            and run.data.tags["process"].rpartition(":")[0] == platform.node()
            and agree(client, run.info.run_id, rows)
        )

    found = client.search_runs([experiment], f"tags.model = '{name}'", order_by=["start_time DESC"])
    runs = [run for run in found if is_it(run)]
    if whole := [run.info.run_id for run in runs if MODEL_TAG in run.data.tags]:
        return whole[0]
    from vae.frames import epoch_ends, load_frames

    pictures = {}
    for kind in ["reconstructions", "manifold"][: 2 if values["model.latent_size"] == "2" else 1]:
        frames = load_frames(models / f"{name}-frames.npz", kind)
        pictures[kind] = frames[epoch_ends(frames, len(rows))]
    if runs:
        run_id = runs[0].info.run_id
    else:
        tags = {**origin(), "dvc.stage": f"train-{name}", "logged.from": "files"}
        run_id = begin_run(client, experiment, name, values, tags)
        (data,) = (dep for dep in locked["deps"] if dep["path"] == "data/binarized")
        client.log_inputs(run_id, [dataset("binarized", data["md5"], Path(data["path"]))])
    complete(client, run_id, name, models, plots, pictures)
    client.set_terminated(run_id, "FINISHED")
    print(f"tracking: the run of {name} is {'completed' if runs else 'made'} from the files")
    return run_id


def read_lock(name: str, *files: Path) -> dict[str, Any]:
    """What dvc.lock says of the training of model `name` that gave these files. Raises UserError."""
    try:
        locked = YAML(typ="safe").load(Path("dvc.lock"))["stages"][f"train-{name}"]
        sums = [out["md5"] for out in locked["outs"]]
    except (OSError, KeyError, TypeError, YAMLError):
        sums = []
    for path in files:
        if not path.exists() or md5(path) not in sums:
            raise UserError(
                f"dvc.lock knows no training that gave {path} as it is; run `dvc repro`"
            )
    return locked


def agree(client: "MlflowClient", run_id: str, rows: Iterable[Mapping[str, float]]) -> bool:
    """Whether the points that a run has are those of the losses table."""
    table = {int(row["epoch"]): row["train_loss"] for row in rows}
    points = client.get_metric_history(run_id, "train_loss")
    return all(table.get(point.step) == point.value for point in points)


def log_results(
    client: "MlflowClient", run_id: str, files: Iterable[Path], scores: Mapping[str, float]
) -> None:
    """Log figures, to which the run's note links, and those scores that are new. Raises UserError."""
    run = client.get_run(run_id)
    links = []
    for path in files:
        if not path.exists():
            raise UserError(f"there is no {path}; run `dvc repro`")
        client.log_artifact(run_id, path, artifact_path=path.parent.name or None)
        place = f"#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/{path}"
        links.append(f"- [{path.name}]({place})")
    note = run.data.tags["mlflow.note.content"].partition("\n")[0]
    client.set_tag(
        run_id, "mlflow.note.content", "\n".join([note, "", "Figures and report:", "", *links])
    )
    for key, value in scores.items():
        if run.data.metrics.get(f"scores/{key}") != value:
            client.log_metric(run_id, f"scores/{key}", value)


def numbers(anomaly: Mapping[str, Any]) -> dict[str, float]:
    """The anomaly stage's results as metrics by flat names."""
    flat = {name: value for name, value in anomaly.items() if isinstance(value, int | float)}
    for kind, scores in anomaly["kinds"].items():
        flat |= {f"roc_auc {kind} {name}": found["roc_auc"] for name, found in scores.items()}
    return flat
