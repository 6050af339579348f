"""Put every published number beside ours, in metrics/reproduction.json and a readable report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from vae import document, reproduction
from vae import figures as draw
from vae.errors import UserError, arguments, run_stage
from vae.files import write_json, write_text, written_whole
from vae.params import MODELS, read_params
from vae.reproduction import PUBLISHED_NOISE_KL
from vae.tracking import track_results

# The figures of each model's run in MLflow, beside the report and the losses, which go to both.
FIGURES = {
    "20d": "originals.png reconstruction.gif reconstruction-early.gif kl-divergence.png noise.png",
    "2d": "manifold.gif manifold-early.gif manifold.png manifold-regions.png latent.png",
}


def main() -> None:
    models, metrics, plots, published, report = map(
        Path, arguments("models", "metrics", "plots", "published", "report")
    )
    (download,) = read_params("download")
    values = reproduction.compare_losses(
        {model: reproduction.load_losses(plots / f"{model}-losses.csv") for model in MODELS},
        reproduction.load_published(published),
    )
    anomaly = read_json(metrics / "anomaly.json")
    write_json(metrics / "reproduction.json", summary(values, anomaly["noise_kl"]))
    with written_whole(plots / "reproduction.png") as path:
        draw.save_figure(path, draw.loss_differences(values))
    write_text(report, document.report_text(values, anomaly, download))
    if download.dataset == "mnist":
        posts = values[values["source"] == "post"].dropna()
        for row in posts[posts["epoch"] == posts["epoch"].max()].itertuples():
            ours, post = document.number(row.ours), document.number(row.published)
            print(f"{row.model} {row.split} loss of epoch {row.epoch}: {ours}, the post's {post}")
        print(reproduction.replay_answer(values))
        print(
            f"KL of the noise image: {document.number(anomaly['noise_kl'])}, the post's {PUBLISHED_NOISE_KL}"
        )
    for model, names in FIGURES.items():
        files = [report, *(plots / name for name in f"losses.png reproduction.png {names}".split())]
        track_results(models / f"{model}.safetensors", files, anomaly if model == "20d" else {})
    print(f"every table and figure: {report}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's value. Raises UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None


def summary(values: pd.DataFrame, noise_kl: float) -> dict[str, Any]:
    """Every published number with ours and the difference; null where this run has no such epoch."""
    losses = values.astype(object).where(values.notna(), None).to_dict("records")
    replayed = int((values["source"] == "notebook").sum() - len(reproduction.replay_misses(values)))
    noise = {"published": PUBLISHED_NOISE_KL, "ours": noise_kl, "difference": noise_kl - PUBLISHED_NOISE_KL}
    return {"losses": losses, "noise_kl": noise, "notebook_losses_replayed": replayed}


if __name__ == "__main__":
    run_stage(main)
