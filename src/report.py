"""Put every published number beside ours, with a verdict, and write the report."""

from functools import reduce
from operator import getitem
from pathlib import Path
import vae.environment  # noqa: F401

import pandas as pd

from vae import cli
from vae.data import load_split, raw_files
from vae.files import md5, read_json, records, write_json, write_text
from vae.model import load_model
from vae.params import MODELS, check_params
from vae.report import figures as draw
from vae.report.page import page
from vae.report.play import play_data
from vae.report.score_charts import bias_curves
from vae.report.text import report_text, verdict_counts
from vae.reproduction.published import load_losses
from vae.reproduction.verdicts import KEY, judge_run, replay_answer
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
    judged = judge_run(params, published, studies, plots, metrics)
    values = judged.values
    found = {
        "published": records(values.sort_values(KEY)),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "earlier_training_of_the_2d_post": judged.earlier,
    }
    write_json(metrics / "reproduction.json", found)

    anomaly = read_json(metrics / "anomaly.json", *ANOMALY_KEYS)
    likelihood = read_json(metrics / "likelihood.json", *MODELS)
    # The few numbers, in nats, that `dvc metrics diff` and `dvc exp show` compare runs by.
    summary = {"noise_kl": anomaly["noise_kl"]}
    for model in MODELS:
        last = read_json(metrics / f"{model}.json", "train_loss", "test_loss")
        summary[model] = {name: last[name] for name in ("train_loss", "test_loss")}
        summary[model]["test_log_likelihood"] = likelihood[model]["test_log_likelihood"]
    write_json(metrics / "summary.json", summary)

    weights = [models / f"{model}.safetensors" for model in MODELS]
    trained = {
        model: load_model(path, 2 if model == "2d" else None)
        for model, path in zip(MODELS, weights, strict=True)
    }
    latent_sizes = params.train_20d.latent_size, params.train_2d.latent_size
    sizes = dict(zip(MODELS, latent_sizes, strict=True))
    bias = pd.read_csv(studies / "likelihood.csv")
    studied = set(map(md5, weights)) == set(bias["weights"])
    draw.save_figure(plots / "likelihood.png", bias_curves(bias if studied else bias[:0], sizes))
    draw.save_figure(plots / "reproduction.png", draw.difference_curves(values, sizes))

    losses = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    train, test = (load_split(binarized, split) for split in ("train", "test"))
    data = [file for pair in raw_files(raw).values() for file in pair if file.exists()]
    shown = params.model_dump(by_alias=True)
    body = report_text(
        judged,
        losses,
        params,
        sizes=sizes,
        anomaly=anomaly,
        likelihood=likelihood,
        labelled=test.labels is not None,
        studied=studied,
        versions=", ".join(map(" ".join, cli.locked_versions(lock).items())),
        parameters={group: reduce(getitem, group.split("."), shown) for group in GROUPS},
        sums={path.as_posix(): md5(path) for path in data + weights},
    )
    play = play_data(params, trained, train, test, models, losses)
    write_text(report, page(body, report.parent, play))
    if answer := replay_answer(values):
        print(answer)
    if values.empty:
        print("data/published has no numbers of this data: the report has no verdicts")
    else:
        print(verdict_counts(values).to_string())
    if "other parameters" in found["verdicts"]:
        print(f"of the {' and the '.join(judged.others)} model the parameters are not the study's")
    print(f"every table and figure: {report}")


if __name__ == "__main__":
    cli.run(main)
