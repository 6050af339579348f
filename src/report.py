"""Put every published number beside ours, with a verdict, and write the report."""

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any
import vae.environment  # noqa: F401

import pandas as pd

from vae import cli
from vae.data import load_split, raw_files
from vae.files import md5, read_json, records, write_json, write_text
from vae.losses import load_losses
from vae.model import load_model
from vae.params import MODELS, Params, check_params
from vae.report import figures as draw
from vae.report.page import page
from vae.report.play import play_data
from vae.report.score_charts import bias_curves
from vae.report.text import report_text, verdict_lines
from vae.reproduction.verdicts import KEY, Verdicts, judge_run
from vae.scores import ANOMALY_KEYS

PATHS = ("raw", "binarized", "models", "metrics", "plots", "published", "studies", "lock", "report")
# The parameters that the report shows.
GROUPS = ("seed", "download.dataset", "binarize", "figures", "train", "train-20d")
GROUPS += ("train-2d", "visualize", "anomaly", "likelihood")


def main() -> None:
    paths = cli.arguments(__doc__, *PATHS)
    params = check_params(Path("params.yaml"))
    verdicts = judge_run(params, paths.published, paths.studies, paths.plots, paths.metrics)
    summarise(verdicts, paths.metrics)
    # The rest takes seconds.
    print("\n".join(verdict_lines(verdicts)), flush=True)
    weights = {model: paths.models / f"{model}.safetensors" for model in MODELS}
    sizes = {"20d": params.train_20d.latent_size, "2d": 2}
    bias = pd.read_csv(paths.studies / "likelihood.csv")
    bias = bias[bias["weights"].isin([*map(md5, weights.values())])]  # of these very models
    draw.save_figure(paths.plots / "likelihood.png", bias_curves(bias, sizes))
    curves = draw.difference_curves(verdicts.values, sizes)
    draw.save_figure(paths.plots / "reproduction.png", curves)
    write_report(paths, params, verdicts, weights, sizes=sizes, studied=len(bias) > 0)
    print(f"every table and figure: {paths.report}")


def summarise(verdicts: Verdicts, metrics: Path) -> None:
    """Write reproduction.json, with all verdicts, and summary.json, for comparisons of runs.

    `test_loss_in_deviations` is the distance of the last test loss from the mean of the study's
    seeds, in standard deviations; the others are in nats.
    """
    values = verdicts.values
    found = {
        "published": records(values.sort_values(KEY)),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "replays": verdicts.replays,
        "earlier_training_of_the_2d_post": verdicts.earlier,
        # A list: DVC's tables would have a column for each key of a mapping.
        "changed_parameters": [f"{name} {change}" for name, change in verdicts.changes.items()],
    }
    write_json(metrics / "reproduction.json", found)
    likelihood = read_json(metrics / "likelihood.json", *MODELS)
    summary = {"noise_kl": read_json(metrics / "anomaly.json", "noise_kl")["noise_kl"]}
    for model in MODELS:
        last = read_json(metrics / f"{model}.json", "epoch", "train_loss", "test_loss")
        summary[model] = {name: last[name] for name in ("train_loss", "test_loss")}
        summary[model]["test_log_likelihood"] = likelihood[model]["test_log_likelihood"]
        place = (model, "test", last["epoch"])
        if place in verdicts.intervals.index and len(values):
            of_seeds = verdicts.intervals.loc[place]
            distance = (last["test_loss"] - of_seeds["mean"]) / of_seeds["deviation"]
            summary[model]["test_loss_in_deviations"] = round(float(distance), 3)
    write_json(metrics / "summary.json", summary)


def write_report(
    paths: Any, params: Params, verdicts: Verdicts, weights: Mapping[str, Path], **facts: Any
) -> None:
    """Write the report; `weights` are the models' files, `facts` are those of `report_text`."""
    sizes = facts["sizes"]
    trained = {model: load_model(path, sizes[model]) for model, path in weights.items()}
    losses = {model: load_losses(paths.plots / f"{model}-losses.csv") for model in MODELS}
    train, test = (load_split(paths.binarized, split) for split in ("train", "test"))
    data = [file for pair in raw_files(paths.raw).values() for file in pair if file.exists()]
    play = play_data(params, trained, train, test, paths.models, losses)
    shown = params.model_dump(by_alias=True)
    text = report_text(
        verdicts,
        losses,
        params,
        anomaly=read_json(paths.metrics / "anomaly.json", *ANOMALY_KEYS),
        likelihood=read_json(paths.metrics / "likelihood.json", *MODELS),
        labelled=test.labels is not None,
        playable=play["models"] is not None,
        versions=", ".join(map(" ".join, cli.locked_versions(paths.lock).items())),
        parameters={group: reduce(getitem, group.split("."), shown) for group in GROUPS},
        checksums={path.as_posix(): md5(path) for path in [*data, *weights.values()]},
        **facts,
    )
    write_text(paths.report, page(text, paths.report.parent, play))


if __name__ == "__main__":
    cli.run(main)
