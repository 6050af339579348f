"""Put every published number beside ours, with a verdict, and write the report."""

from pathlib import Path

import pandas as pd

from vae import cli
from vae.cli import arguments, locked_versions
from vae.data import load_split, raw_files
from vae.files import md5, read_json, records, write_json, write_text
from vae.params import MODELS, check_params
from vae.report import figures as draw
from vae.report.page import page
from vae.report.play import play_data
from vae.report.score_charts import bias_curves
from vae.report.text import markdown_table, parameter_table, plain_table, report_text, verdict_table
from vae.reproduction.intervals import load_intervals
from vae.reproduction.published import load_losses, load_published
from vae.reproduction.verdicts import KEY, fit_batches, judge_run, other_parameters, replay_answer
from vae.scores import ANOMALY_KEYS
from vae.weights import load_network

ARGUMENTS = ("raw", "binarized", "models", "metrics", "plots")
ARGUMENTS += ("published", "studies", "lock", "report")
# What the report shows of the parameters.
GROUPS = ("seed", "download.dataset", "binarize", "figures", "train", "train-20d")
GROUPS += ("train-2d", "visualize", "anomaly", "likelihood")


def main() -> None:
    raw, binarized, models, metrics, plots, published, studies, lock, report = arguments(
        __doc__, *ARGUMENTS
    )
    params = check_params(Path("params.yaml"))
    ours = {model: load_losses(plots / f"{model}-losses.csv") for model in MODELS}
    numbers = load_published(published, params.download.dataset, params.binarize)
    index, tables = numbers
    study = load_intervals(studies / "seeds.csv")
    others = other_parameters(params, studies / "seeds.json")
    values = judge_run(numbers, metrics, ours, study, others)
    earlier = None
    if source := index.earlier_training:
        shifted = load_losses(studies / "pretraining.csv", "seed", "batches")
        table = tables[(tables["model"] == "2d") & (tables["source"] == source)]
        earlier = fit_batches(shifted, table, study)
    found = {
        "published": records(values.sort_values(KEY)),
        "verdicts": values["verdict"].value_counts().to_dict(),
        "earlier_training_of_the_2d_post": earlier,
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

    losses = values[values["split"] != "noise"]
    draw.save_figure(plots / "reproduction.png", draw.difference_curves(losses))
    bias = pd.read_csv(studies / "likelihood.csv")
    draw.save_figure(plots / "likelihood.png", bias_curves(bias))
    files = [file for pair in raw_files(raw).values() for file in pair if file.exists()]
    files += [models / f"{name}.safetensors" for name in MODELS]
    sums = [[f"`{path.as_posix()}`", f"`{md5(path)}`"] for path in files]
    versions = (f"{name} {version}" for name, version in locked_versions(lock).items())
    networks = {
        model: load_network(models / f"{model}.safetensors", 2 if model == "2d" else None)
        for model in MODELS
    }
    train, test = (load_split(binarized, split) for split in ("train", "test"))
    body = report_text(
        values,
        index,
        earlier,
        anomaly,
        likelihood,
        params,
        ours,
        labelled=test.labels is not None,
        versions=", ".join(versions),
        parameters=parameter_table(params, GROUPS),
        sums=markdown_table(["File", "MD5"], sums, texts=2),
    )
    data = play_data(params, networks, train, test, models, ours)
    write_text(report, page(body, report.parent, data))
    if len(values):
        if answer := replay_answer(losses):
            print(answer)
        print(verdict_table(values, plain_table))
        if others:
            print(f"of the {' and the '.join(others)} model the parameters are not the study's")
    else:
        print("data/published has no numbers of this data: the report has no verdicts")
    print(f"every table and figure: {report}")


if __name__ == "__main__":
    cli.run(main)
