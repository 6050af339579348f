"""Put every published number beside ours, with a verdict, in metrics/reproduction.json and a report."""

from pathlib import Path
from typing import Any

import pandas as pd

from vae import document, reproduction
from vae import figures as draw
from vae.errors import UserError, arguments, run_stage
from vae.files import read_json, write_json, write_text, written_whole
from vae.mirror import mirror
from vae.params import read_params
from vae.reproduction import load_losses, load_published
from vae.verdicts import KEY, fit_batches, judge_run, load_intervals


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
    losses = values[values["split"] != "noise"]
    with written_whole(plots / "reproduction.png") as path:
        draw.save_figure(path, draw.loss_differences(losses))
    write_text(report, document.report_text(values, earlier, anomaly, likelihood, download))
    if download.dataset == "mnist":
        print(reproduction.replay_answer(losses))
        print(document.verdict_table(values))
    try:
        mirror(models, metrics, plots, report)
    except UserError as error:  # the results are there all the same
        print(f"tracking: {error}")
    print(f"every table and figure: {report}")


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
