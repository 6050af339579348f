"""The report of the demo, and how a page is made; what its script does is in tests/services."""

import hashlib
import json
import re
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

import report
from conftest import ROOT
from vae.cli import UserError
from vae.data import raw_files, tiled
from vae.files import md5, read_json, write_csv, write_json
from vae.frames import load_frames
from vae.losses import load_losses
from vae.model import load_model
from vae.params import MODELS, check_params
from vae.report import text
from vae.report.page import page
from vae.reproduction.intervals import load_study
from vae.reproduction.verdicts import Verdicts, judge_run

# Addresses that a browser fetches, and elements that run something or fetch for other reasons.
ADDRESSES = ("src", "srcset", "data", "poster", "background", "action")
ACTIVE = {"iframe", "object", "embed", "link", "base", "form", "audio", "video"}


class Page(HTMLParser):
    """Elements `(tag, attributes)`, rows of the tables as lists of cells, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.rows, self.text, self.cell = [], [], "", None
        self.texts = {}  # the first text in each kind of element
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.cell = tag in ("td", "th") or (self.cell and tag != "tr")

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.elements:
            tag, attributes = self.elements[-1]
            self.texts.setdefault("numbers" if attributes.get("id") == "data" else tag, data)
        if self.cell:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(finished_demo: Path) -> Page:
    return Page((finished_demo / "report.html").read_text(encoding="utf-8"))


def embedded(uri: str) -> bytes:
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/png"
    return b64decode(content, validate=True)


def test_the_report_refers_to_nothing_outside_itself_and_runs_its_own_script_alone(html):
    scripts = html.all("script")
    assert [script.get("type") for script in scripts] == ["application/json", None]
    assert not ACTIVE & {tag for tag, _ in html.elements}
    for tag, attributes in html.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ADDRESSES:
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
        assert attributes.get("href", "#").startswith("#")
        assert "url(" not in attributes.get("style", "")
    # The style and the script, which are text to the parser, too.
    assert ":root {" in html.text
    for reaching_out in ("url(", "@import", "fetch(", "XMLHttpRequest", "import("):
        assert reaching_out not in html.text
    known = re.search(r"script-src 'sha256-([^']+)'", html.all("meta")[1]["content"])[1]
    assert known == b64encode(hashlib.sha256(html.texts["script"].encode()).digest()).decode()


def test_every_link_of_the_report_leads_to_a_chapter(html):
    names = [attributes["id"] for attributes in html.all("h2")]
    assert [attributes["href"] for attributes in html.all("a")] == [f"#{name}" for name in names]
    assert len(set(names)) == len(names) > 5


def test_every_image_of_the_report_says_what_it_shows(html):
    texts = {attributes["data-name"]: [] for attributes in html.all("img")}
    for attributes in html.all("img"):
        texts[attributes["data-name"]].append(attributes["alt"])
    # Of a chart in two panels the first one says it for both.
    assert all(len(first) > 10 and not any(others) for first, *others in texts.values())
    assert len(html.all("figure")) == len(html.all("figcaption"))


def test_the_report_holds_every_picture_of_plots_and_charts_of_both_models_in_two_panels(
    html, finished_demo
):
    shown = {}
    for image in html.all("img"):
        part = np.asarray(Image.open(BytesIO(embedded(image["src"]))))
        shown.setdefault(image["data-name"], []).append(part)
    pictures = {path.stem: path for path in (finished_demo / "plots").glob("*.png")}
    # What compares with published numbers, of which there are none of these digits.
    assert set(pictures) - set(shown) == {"likelihood", "reproduction"}
    assert not set(shown) - set(pictures)
    for name in pictures.keys() & shown.keys():
        whole = np.asarray(Image.open(pictures[name]))
        assert np.array_equal(np.concatenate(shown[name], axis=1), whole)
    assert sorted(name for name in shown if len(shown[name]) == 2) == ["losses"]


def test_the_pages_numbers_are_the_models_the_scores_and_the_frames(html, finished_demo):
    data = json.loads(html.texts["numbers"])
    for name in ("20d", "2d"):
        model = load_model(finished_demo / f"models/{name}.safetensors")
        values = [value.numpy() for value in model.parameters()]
        pairs = zip(values[::2], values[1::2], strict=True)
        for (weight, bias), layer in zip(pairs, data["models"][name]["layers"], strict=True):
            numbers, steps, biases = (
                np.frombuffer(b64decode(layer[part]), kind)
                for part, kind in (("weights", "<i2"), ("steps", "<f4"), ("bias", "<f4"))
            )
            assert np.array_equal(biases, bias)
            rounded = numbers.reshape(len(steps), -1) * steps[:, None]
            assert np.all(np.abs(rounded - weight.T) <= 0.51 * steps[:, None])
        losses = load_losses(finished_demo / f"plots/{name}-losses.csv")
        assert data["losses"][name]["test_loss"] == losses["test_loss"].tolist()
    epochs = data["training"]["epochs"]
    assert epochs[0] == 0
    assert data["training"]["manifolds"][0] != data["training"]["manifolds"][1]
    assert 9 < epochs[-1] <= 10
    assert epochs == sorted(epochs)
    manifolds = load_frames(finished_demo / "models/2d-frames.arrow", "manifold")
    first, last = (
        np.asarray(Image.open(BytesIO(b64decode(data["training"]["manifolds"][at]))).convert("L"))
        for at in (0, -1)
    )
    assert np.array_equal(first, tiled(manifolds[0], 20))
    assert np.array_equal(last, tiled(manifolds[-1], 20))


def test_the_page_stays_smaller_than_eight_million_bytes(finished_demo):
    assert (finished_demo / "report.html").stat().st_size < 8e6


def test_the_report_has_every_number_of_the_demo_in_its_tables(html, finished_demo):
    assert read_json(finished_demo / "metrics/reproduction.json")["published"] == []
    anomaly, likelihood = (
        read_json(finished_demo / f"metrics/{n}.json") for n in ("anomaly", "likelihood")
    )
    for model in MODELS:
        losses = load_losses(finished_demo / f"plots/{model}-losses.csv")
        for row in losses.itertuples():
            assert [str(row.epoch), f"{row.train_loss:.3f}", f"{row.test_loss:.3f}"] in html.rows
        names = ("test_log_likelihood", "standard_error", "effective_samples")
        found = [likelihood[model][name] for name in names]
        assert [model, *(f"{value:.3f}" for value in found)] in html.rows
        parts = likelihood[model]["decomposition"]
        of_kl = (parts[name] for name in ("kl", "mutual_information", "aggregated_kl"))
        active = f"{parts['active_units']} of {len(parts['kl_by_dimension'])}"
        assert [model, *(f"{value:.3f}" for value in of_kl), active] in html.rows
    for deep, flat in zip(likelihood["20d"]["units"], likelihood["2d"]["units"], strict=True):
        (row,) = (row for row in html.rows if row[0] == deep["loss"])
        assert len(row[1]) > 10  # what it is
        assert row[2:] == [f"{deep['value']:.3f}", f"{flat['value']:.3f}"]
    for kind, scores in anomaly["kinds"].items():
        found = [scores[name] for name in ("kl", "reconstruction", "negative_elbo")]
        areas = [f"{each['roc_auc']:.3f} ({each['average_precision']:.3f})" for each in found]
        assert [kind, *areas] in html.rows
    for name, value in (
        ("KL of the noise image, nats", anomaly["noise_kl"]),
        ("% of the training images above it", 100 * anomaly["training_share_above_noise"]),
    ):
        assert [name, f"{value:.3f}"] in html.rows


@pytest.fixture
def report_of(tmp_path) -> Callable[..., str]:
    """Writes the report's text of the committed run, or of the same losses under other parameters,
    beside other published numbers, or with other facts."""
    published = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    run = published[(published["source"] == "post") & (published["split"] != "noise")]
    for model, rows in run.groupby("model"):
        ours = rows.pivot(index="epoch", columns="split", values="ours").add_suffix("_loss")
        write_csv(tmp_path / f"{model}-losses.csv", ours.reset_index())
    losses = {model: load_losses(tmp_path / f"{model}-losses.csv") for model in MODELS}
    facts = {name: read_json(ROOT / f"metrics/{name}.json") for name in ("anomaly", "likelihood")}
    facts |= {
        "sizes": {"20d": 20, "2d": 2},
        "labelled": True,
        "playable": True,
        "studied": True,
        "versions": "",
        "parameters": {},
        "checksums": {},
    }

    def write(
        changed: dict[str, Any] | None = None, folder: Path = ROOT / "data/published", **other
    ) -> str:
        params = check_params(ROOT / "params.yaml", changed)
        judged = judge_run(params, folder, ROOT / "studies", tmp_path, ROOT / "metrics")
        return text.report_text(judged, losses, params, **facts | other)

    return write


def test_the_report_has_each_published_value_its_sign_and_the_count_of_each_verdict(report_of):
    shown = report_of()
    values = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    assert f"Of the {len(values)} published values" in shown
    for verdict, count in values["verdict"].value_counts().items():
        assert f"- **{count}** {verdict} {text.SIGNS[verdict]}" in shown
    for value in values[values["split"] != "noise"].itertuples():
        sign = text.SIGNS[value.verdict]
        assert f"{value.published:.3f} {sign} | {value.difference:+.3f}" in shown
    assert "| the post's | 51.763 |" in shown
    assert "a model that had seen 234 batches before" in shown
    assert (
        "**The notebook's run is replayed, 40 of 40 losses; other seeds reach 8 to 28.**" in shown
    )
    assert "| 2d test | 0.538 | 1.0 | 68 % |" in shown
    assert "Other parameters" not in shown


def test_a_table_of_another_source_is_judged_and_shown_by_its_own_name(report_of, tmp_path):
    folder = shutil.copytree(ROOT / "data/published", tmp_path / "published")
    index = folder / "tables.yaml"
    index.write_text(index.read_text().replace("source: notebook", "source: smith-2021"))
    shown = report_of(folder=folder)
    assert "| smith-2021, 20d losses | 20 | 0 | 0 |" in shown
    assert "**The smith-2021's run is replayed, 40 of 40 losses; other" in shown
    assert "| train, smith-2021 | train, ours - smith-2021 |" in shown


def test_another_papers_report_has_nothing_of_the_posts(report_of, tmp_path):
    folder = shutil.copytree(ROOT / "data/published", tmp_path / "published")
    (folder / "tables.yaml").write_text(
        "about: Smith (2021) trained one.\n"
        "data: {dataset: mnist, mode: threshold, threshold: 128}\n"
        "tables: [{source: smith-2021, model: 20d, file: post-20d.csv, epochs: 10}]\n"
    )
    shown = report_of(folder=folder, studied=False)
    assert "| smith-2021, 20d losses | 0 | 20 | 0 |" in shown
    assert shown.startswith("# Two variational autoencoders, trained on mnist\n")
    for word in (
        "Variational Autoencoder Code",
        "the post's",
        "2019",
        "notebook",
        "before",
        "studies/likelihood.csv",
        "\n.",
    ):
        assert word not in shown, word


@pytest.mark.parametrize(
    ("key", "value", "models", "change"),
    [
        ("train.learning_rate", 0.003, "20d and the 2d", "0.003 instead of 0.001"),
        ("train-2d.hidden_sizes", [400], "2d", "[400] instead of [400, 150]"),
    ],
)
def test_a_run_of_other_parameters_says_so_at_its_top_and_explains_no_table_by_a_study(
    report_of, key, value, models, change
):
    shown = report_of({key: value}, studied=False)
    top = shown.partition("## Verdicts")[0]
    assert f"**Other parameters than the published results': `{key}` {change}.**" in top
    assert f"stand beside the {models} model without a verdict" in top
    assert f"- **{40 if models == '2d' else 81}** other parameters ·" in top
    assert "batches before" not in shown
    assert "studies/likelihood.csv" not in shown
    assert ("replayed, 20 of 20 losses; other seeds reach 2 to 11" in shown) == (models == "2d")


def test_the_run_of_another_seed_says_so_at_its_top(report_of):
    top = report_of({"seed": 3}).partition("## Verdicts")[0]
    assert "**Other parameters than the published results': `seed` 3 instead of 199.**" in top
    assert "without a verdict" not in top


def test_a_report_of_other_data_says_so_and_speaks_of_no_published_number_and_no_digit(report_of):
    shown = report_of({"download.dataset": "fashion-mnist"}, labelled=False, studied=False)
    assert shown.startswith("# Two variational autoencoders, trained on fashion-mnist\n")
    assert "trained on\nfashion-mnist, of which" in shown
    for word in (
        "Experiments",
        "the post's",
        "2019",
        "notebook",
        "## Verdicts",
        "Larochelle",
        "boundaries",
    ):
        assert word not in shown, word
    # But for a kind of anomaly, and what `make demo` runs on.
    assert "digit" not in shown.replace("scikit-learn digits", "").replace("learn's digits", "")
    assert "| Epoch | train, ours | test, ours |" in shown


@pytest.mark.parametrize("epoch", [10, 99])
def test_the_summary_has_test_losses_in_deviations_of_the_seeds(tmp_path, epoch):
    rows, intervals = load_study(ROOT / "studies/seeds.csv")
    values = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    for name in ("anomaly", "likelihood"):
        shutil.copy(ROOT / f"metrics/{name}.json", tmp_path)
    for model in MODELS:
        last = {"epoch": epoch, "train_loss": 89.0, "test_loss": 90.0}
        write_json(tmp_path / f"{model}.json", last)
    report.summarise(Verdicts(None, values, intervals, {}, [], {}, None), tmp_path)
    found = read_json(tmp_path / "summary.json")["20d"]
    assert (found["train_loss"], found["test_loss"]) == (89.0, 90.0)
    # The study has no epoch 99.
    assert ("test_loss_in_deviations" in found) == (epoch == 10)
    if epoch == 10:
        seeds = rows[(rows["model"] == "20d") & (rows["epoch"] == 10)]["test_loss"]
        expected = (90.0 - seeds.mean()) / seeds.std()
        assert found["test_loss_in_deviations"] == pytest.approx(expected, abs=1e-3)


def test_head_and_foot_link_to_the_notebook_and_say_where_the_commit_is(report_of):
    head, *_, foot = report_of().split("\n## ")
    for part in (head, foot):
        assert "*Variational Autoencoder Code and Experiments*" in part
        assert "https://github.com/alineberry/alcore/blob/8139058/notebooks/VAE.ipynb" in part
    assert "`git log -1 dvc.lock`" in foot
    assert "do not depend on the processor" in foot


def test_the_study_of_the_likelihood_is_of_the_committed_models():
    stages = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    sums = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    bias = pd.read_csv(ROOT / "studies/likelihood.csv")
    assert set(bias["model"]) == set(MODELS)
    for row in bias.itertuples():
        assert row.weights == sums[f"models/{row.model}.safetensors"]


def test_the_report_says_what_it_was_made_of_and_how_to_repeat_it(html, finished_demo, params):
    rows = {row[0]: row[-1] for row in html.rows}
    for pair in raw_files(finished_demo / "data/raw").values():
        for path in pair:
            assert rows[path.relative_to(finished_demo).as_posix()] == md5(path)
    for path in ("models/20d.safetensors", "models/2d.safetensors"):
        assert rows[path] == md5(finished_demo / path)
    assert rows["seed"] == str(params.seed)
    assert rows["train"].startswith("epochs: 10, batch_size: 32, learning_rate: 0.001, ")
    assert rows["download.dataset"] == '"digits"'
    assert set(report.GROUPS) <= set(rows)
    for name in ("numpy", "scipy", "matplotlib", "pyarrow", "torch", "mlflow"):
        assert f"{name} {version(name).partition('+')[0]}" in html.text
    for command in ("make repro", "make check", "make verify"):
        assert command in html.text


def test_what_looks_like_html_is_shown_as_it_is(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    text = page('# 1 < 2 {x} & "y"\n\n## <b>\n\n![A "b" <c>](a.png "d & <e>")\n', tmp_path, {})
    found = Page(text)
    assert found.text.count('1 < 2 {x} & "y"') == 2
    assert "d & <e>" in found.text
    assert [image["alt"] for image in found.all("img")] == ['A "b" <c>']
    assert not {"b", "c", "e"} & {tag for tag, _ in found.elements}


def test_a_missing_figure_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*/plots/gone.png .*; run `dvc repro`"):
        page('# Report\n\n![What](plots/gone.png "Caption")\n', tmp_path, {})


def test_a_report_of_models_that_the_page_cannot_run_says_so(report_of):
    found = report_of(playable=False)
    assert "The models cannot run in this page" in found
    assert "[plane]" not in found and "[draw]" not in found and "[training]" in found
