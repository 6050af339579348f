"""Put every published number beside ours, with a verdict, and write the report."""

from functools import reduce
from operator import getitem
from pathlib import Path
import vae.environment  # noqa: F401

import pandas as pd

from vae import cli
from vae.data import load_split, raw_files
from vae.files import md5, read_json, records, write_json, write_text
from vae.losses import load_losses
from vae.model import load_model
from vae.params import MODELS, check_params
from vae.report import figures as draw
from vae.report.page import page
from vae.report.play import play_data
from vae.report.score_charts import bias_curves
from vae.report.text import report_text, verdict_lines
from vae.reproduction.verdicts import KEY, Verdicts, judge_run
from vae.scores import ANOMALY_KEYS

ARGUMENTS = ("raw", "binarized", "models", "metrics", "plots")
ARGUMENTS += ("published", "studies", "lock", "report")
# What the report shows of the parameters.
GROUPS = ("seed", "download.dataset", "binarize", "figures", "train", "train-20d")
GROUPS += ("train-2d", "visualize", "anomaly", "likelihood")


def main() -> None:
    raw, binarized, models, metrics, plots, published, studies, lock, report = cli.arguments(
        __doc__, *ARGUMENTS
    )
    params = check_params(Path("params.yaml"))
    verdicts = judge_run(params, published, studies, plots, metrics)
    summarise(verdicts, metrics)

    weights = {model: models / f"{model}.safetensors" for model in MODELS}
    trained = {"20d": load_model(weights["20d"]), "2d": load_model(weights["2d"], latent_size=2)}
    sizes = {"20d": params.train_20d.latent_size, "2d": 2}
    bias = pd.read_csv(studies / "likelihood.csv")
    bias = bias[bias["weights"].isin([*map(md5, weights.values())])]  # none of other models
    draw.save_figure(plots / "likelihood.png", bias_curves(bias, sizes))
    draw.save_figure(plots / "reproduction.png", draw.difference_curves(verdicts.values, sizes))

    losses = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    train, test = (load_split(binarized, split) for split in ("train", "test"))
    data = [file for pair in raw_files(raw).values() for file in pair if file.exists()]
    shown = params.model_dump(by_alias=True)
    play = play_data(params, trained, train, test, models, losses)
    text = report_text(
        verdicts,
        losses,
        params,
        sizes=sizes,
        anomaly=read_json(metrics / "anomaly.json", *ANOMALY_KEYS),
        likelihood=read_json(metrics / "likelihood.json", *MODELS),
        labelled=test.labels is not None,
        studied=len(bias) > 0,
        playable=play["models"] is not None,
        versions=", ".join(map(" ".join, cli.locked_versions(lock).items())),
        parameters={group: reduce(getitem, group.split("."), shown) for group in GROUPS},
        checksums={path.as_posix(): md5(path) for path in [*data, *weights.values()]},
    )
    write_text(report, page(text, report.parent, play))
    print("\n".join(verdict_lines(verdicts)))
    print(f"every table and figure: {report}")


def summarise(verdicts: Verdicts, metrics: Path) -> None:
    """Write reproduction.json, each value with its verdict, and summary.json, the few numbers by
    which `dvc metrics diff` and `dvc exp show` compare runs.

    The latter are in nats, but `test_loss_in_deviations`: how far the last test loss is from the
    mean of the study's seeds, in their standard deviations.
    """
    values = verdicts.values
    found = {
        "published": records(values.sort_values(KEY)),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "replays": verdicts.replays,
        "earlier_training_of_the_2d_post": verdicts.earlier,
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


if __name__ == "__main__":
    cli.run(main)
