"""Put every published number beside ours, with a verdict, in metrics/reproduction.json and a report."""

from vae import cli

cli.begin()

from pathlib import Path
from typing import Any

from vae.cli import arguments
from vae.data import FILE_NAMES, RAW_FOLDER
from vae.files import md5, read_json, write_json, write_text, written_whole
from vae.params import MODELS, read_params
from vae.report import figures as draw
from vae.report import text
from vae.report.page import page
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import load_losses, load_published
from vae.reproduction.verdicts import KEY, fit_batches, judge_run

import pandas as pd

# What the report tells of the parameters, and of the packages that the results come from.
GROUPS = ("seed", "arithmetic", "download", "binarize", "figures", "train", "train-20d", "train-2d")
GROUPS += ("visualize", "anomaly", "likelihood")
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "dvc",
    "mlflow",
)


def main() -> None:
    raw, models, metrics, plots, published, studies, lock, report = arguments(
        __doc__, "raw", "models", "metrics", "plots", "published", "studies", "lock", "report"
    )
    params = dict(zip(GROUPS, read_params(*GROUPS), strict=True))
    study, tables = load_intervals(studies / "seeds.csv"), load_published(published)
    values = judge_run(metrics, plots, tables, study)
    shifted = load_losses(studies / "pretraining.csv", "seed", "batches")
    earlier = fit_batches(shifted, tables["2d"]["post"], study)
    anomaly, likelihood = (
        read_json(metrics / f"{name}.json") for name in ("anomaly", "likelihood")
    )
    write_json(metrics / "reproduction.json", judged(values, earlier))
    write_json(metrics / "summary.json", summary(metrics, anomaly, likelihood))
    losses = values[values["split"] != "noise"]
    with written_whole(plots / "reproduction.png") as path:
        draw.save_figure(path, draw.loss_differences(losses))
    files = [raw / RAW_FOLDER / name for names in FILE_NAMES.values() for name in names]
    files += [models / f"{name}.safetensors" for name in MODELS]
    sums = {path.as_posix(): md5(path) for path in files}
    body = text.report_text(values, earlier, anomaly, likelihood, params, versions(lock), sums)
    write_text(report, page(body, report.parent))
    if params["download"].dataset == "mnist":
        print(published.replay_answer(losses))
        print(text.verdict_table(values))
    print(f"every table and figure: {report}")


def versions(lock: Path) -> dict[str, str]:
    """The version of each of `PACKAGES` that a lock names, or the versions where they hang on Python's."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [line.split()[0].split("==") for line in lines if "==" in line]
    return {name: " or ".join(v for package, v in pins if package == name) for name in PACKAGES}


def summary(metrics: Path, anomaly: dict[str, Any], likelihood: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that runs are compared by, in `dvc metrics diff` and `dvc exp show`; all in nats."""
    found: dict[str, Any] = {"noise_kl": anomaly["noise_kl"]}
    for model in MODELS:
        losses = read_json(metrics / f"{model}.json")
        found[model] = {name: losses[name] for name in ("train_loss", "test_loss")}
        found[model]["test_log_likelihood"] = likelihood[model]["test_log_likelihood"]
    return found


def judged(values: pd.DataFrame, earlier: dict[str, Any]) -> dict[str, Any]:
    """Every published number with ours, interval and verdict; null where this run has no such epoch."""
    published = values.sort_values(list(KEY)).astype(object)
    return {
        "published": published.where(values.notna(), None).to_dict("records"),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "earlier_training_of_the_2d_post": earlier,
    }


if __name__ == "__main__":
    cli.run(main)
