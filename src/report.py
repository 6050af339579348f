"""Put every published number beside ours, with a verdict, in metrics/reproduction.json and a report."""

from pathlib import Path
from typing import Any

import pandas as pd

from vae import document, reproduction
from vae import figures as draw
from vae.errors import arguments, run_stage
from vae.files import read_json, write_json, write_text, written_whole
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


def main() -> None:
    models, metrics, plots, published, studies, report = map(
        Path, arguments("models", "metrics", "plots", "published", "studies", "report")
    )
    (download,) = read_params("download")
    study = load_intervals(studies / "seeds.csv")
    values = judge_run(metrics, plots, published, study)
    earlier = fit_batches(
        load_losses(studies / "pretraining.csv"), load_published(published)["2d"]["post"], study
    )
    anomaly, likelihood = (read_json(metrics / f"{name}.json") for name in ("anomaly", "likelihood"))
    write_json(metrics / "reproduction.json", summary(values, earlier))
    write_json(metrics / "summary.json", headlines(metrics, anomaly, likelihood))
    losses = values[values["split"] != "noise"]
    with written_whole(plots / "reproduction.png") as path:
        draw.save_figure(path, draw.loss_differences(losses))
    write_text(report, document.report_text(values, earlier, anomaly, likelihood, download))
    if download.dataset == "mnist":
        print(reproduction.replay_answer(losses))
        print(document.verdict_table(values))
    scores = {"20d": {**numbers(anomaly), **likelihood["20d"]}, "2d": likelihood["2d"]}
    for model, names in FIGURES.items():
        files = [report, *(plots / name for name in f"losses.png reproduction.png {names}".split())]
        track_results(models / f"{model}.safetensors", files, scores[model])
    print(f"every table and figure: {report}")


def numbers(anomaly: dict[str, Any]) -> dict[str, float]:
    """The anomaly stage's results as metrics by flat names."""
    flat = {name: value for name, value in anomaly.items() if isinstance(value, int | float)}
    for kind, scores in anomaly["kinds"].items():
        flat |= {f"roc_auc/{kind}/{name}": found["roc_auc"] for name, found in scores.items()}
    return flat


def headlines(metrics: Path, anomaly: dict[str, Any], likelihood: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that runs are compared by, in `dvc metrics diff` and `dvc exp show`; all in nats."""
    found: dict[str, Any] = {"noise_kl": anomaly["noise_kl"]}
    for model in MODELS:
        losses = read_json(metrics / f"{model}.json")
        found[model] = {name: losses[name] for name in ("train_loss", "test_loss")}
        found[model]["test_log_likelihood"] = likelihood[model]["test_log_likelihood"]
    return found


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
