"""Put every published number beside ours, with a verdict, in metrics/reproduction.json and a report."""

from pathlib import Path
from typing import Any

import pandas as pd

from vae import document, reproduction
from vae import figures as draw
from vae.data import FILE_NAMES, RAW_FOLDER
from vae.errors import arguments, run_stage
from vae.files import md5, read_json, write_json, write_text, written_whole
from vae.page import page
from vae.params import MODELS, read_params
from vae.reproduction import load_losses, load_published
from vae.tracking import track_results
from vae.verdicts import KEY, fit_batches, judge_run, load_intervals

# The figures of each model's run in MLflow, beside the report and the losses, which go to both.
FIGURES = {
    "20d": "originals.png reconstruction.gif reconstruction-early.gif "
    "kl-divergence.png noise.png anomalies.png",
    "2d": "manifold.gif manifold-early.gif manifold.png manifold-regions.png latent.png",
}
# What the report tells of the parameters, and of the packages that the results come from.
GROUPS = ("seed", "arithmetic", "download", "binarize", "figures", "train", "train-20d", "train-2d")
GROUPS += ("visualize", "anomaly", "likelihood")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "dvc", "mlflow")


def main() -> None:
    raw, models, metrics, plots, published, studies, lock, report = map(
        Path, arguments("raw", "models", "metrics", "plots", "published", "studies", "lock", "report")
    )
    params = dict(zip(GROUPS, read_params(*GROUPS), strict=True))
    study, tables = load_intervals(studies / "seeds.csv"), load_published(published)
    values = judge_run(metrics, plots, tables, study)
    earlier = fit_batches(load_losses(studies / "pretraining.csv"), tables["2d"]["post"], study)
    anomaly, likelihood = (read_json(metrics / f"{name}.json") for name in ("anomaly", "likelihood"))
    write_json(metrics / "reproduction.json", summary(values, earlier))
    losses = values[values["split"] != "noise"]
    with written_whole(plots / "reproduction.png") as path:
        draw.save_figure(path, draw.loss_differences(losses))
    files = [raw / RAW_FOLDER / name for names in FILE_NAMES.values() for name in names]
    files += [models / f"{name}.safetensors" for name in MODELS]
    sums = {path.as_posix(): md5(path) for path in files}
    text = document.report_text(values, earlier, anomaly, likelihood, params, versions(lock), sums)
    write_text(report, page(text, report.parent))
    if params["download"].dataset == "mnist":
        print(reproduction.replay_answer(losses))
        print(document.verdict_table(values))
    scores = {"20d": {**numbers(anomaly), **likelihood["20d"]}, "2d": likelihood["2d"]}
    for model, names in FIGURES.items():
        files = [report, *(plots / name for name in f"losses.png reproduction.png {names}".split())]
        track_results(models / f"{model}.safetensors", files, scores[model])
    print(f"every table and figure: {report}")


def versions(lock: Path) -> dict[str, str]:
    """The version of each of `PACKAGES` that a lock names, or the versions where they hang on Python's."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [line.split()[0].split("==") for line in lines if "==" in line]
    return {name: " or ".join(v for package, v in pins if package == name) for name in PACKAGES}


def numbers(anomaly: dict[str, Any]) -> dict[str, float]:
    """The anomaly stage's results as metrics by flat names."""
    flat = {name: value for name, value in anomaly.items() if isinstance(value, int | float)}
    for kind, scores in anomaly["kinds"].items():
        flat |= {f"roc_auc/{kind}/{name}": found["roc_auc"] for name, found in scores.items()}
    return flat


def summary(values: pd.DataFrame, earlier: dict[str, Any]) -> dict[str, Any]:
    """Every published number with ours, interval and verdict; null where this run has no such epoch."""
    published = values.sort_values(list(KEY)).astype(object)
    return {
        "published": published.where(values.notna(), None).to_dict("records"),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "earlier_training_of_the_2d_post": earlier,
    }


if __name__ == "__main__":
    run_stage(main)
