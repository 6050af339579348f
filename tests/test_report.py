"""The report of the demo and of the committed run; its script is tested in tests/services."""

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

# Attributes by which a browser loads something, and elements that run or load something.
ADDRESSES = ("src", "srcset", "data", "poster", "background", "action")
ACTIVE = {"iframe", "object", "embed", "link", "base", "form", "audio", "video"}


class Page(HTMLParser):
    """Elements `(tag, attributes)`, table rows as lists of cells, and texts."""

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


def test_the_report_loads_nothing_and_runs_its_own_script_alone(html, finished_demo):
    assert (finished_demo / "report.html").stat().st_size < 8e6
    scripts = html.all("script")
    assert [script.get("type") for script in scripts] == ["application/json", None]
    assert not ACTIVE & {tag for tag, _ in html.elements}
    for tag, attributes in html.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ADDRESSES:
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
        assert "url(" not in attributes.get("style", "")
    # Style and script are text to the parser.
    assert ":root {" in html.text
    for loading in ("url(", "@import", "fetch(", "XMLHttpRequest", "import("):
        assert loading not in html.text
    known = re.search(r"script-src 'sha256-([^']+)'", html.all("meta")[1]["content"])[1]
    assert known == b64encode(hashlib.sha256(html.texts["script"].encode()).digest()).decode()


def test_every_link_of_the_report_leads_to_a_chapter(html):
    names = [attributes["id"] for attributes in html.all("h2")]
    assert [attributes["href"] for attributes in html.all("a")] == [f"#{name}" for name in names]
    assert len(set(names)) == len(names) > 5


def test_the_report_holds_and_describes_every_image_of_plots(html, finished_demo):
    files = {path.stem: path for path in (finished_demo / "plots").glob("*.png")}
    # These compare with published numbers, of which the digits have none.
    names = set(files) - {"likelihood", "reproduction"}
    assert {image["data-name"] for image in html.all("img")} == names
    for name in names:
        images = [image for image in html.all("img") if image["data-name"] == name]
        # On a phone the panels of the losses stand one below the other.
        assert len(images) == (2 if name == "losses" else 1)
        assert len(images[0]["alt"]) > 10
        uris = [image["src"].partition(";base64,") for image in images]
        assert {kind for kind, *_ in uris} == {"data:image/png"}
        parts = [np.asarray(Image.open(BytesIO(b64decode(content)))) for *_, content in uris]
        whole = np.asarray(Image.open(files[name]))
        assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert len(html.all("figure")) == len(html.all("figcaption")) == len(names)


def test_the_script_gets_the_models_the_losses_and_the_frames(html, finished_demo):
    data = json.loads(html.texts["numbers"])
    for name in MODELS:
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
    training = data["training"]
    assert training["epochs"] == sorted(training["epochs"])
    assert (training["epochs"][0], training["epochs"][-1]) == (0, 10)
    assert training["manifold"][0] != training["manifold"][1]
    for at, kind in ((0, "frames"), (-1, "epochs")):
        frames = load_frames(finished_demo / f"models/2d-{kind}.arrow", "manifold")
        image = Image.open(BytesIO(b64decode(training["manifold"][at])))
        assert np.array_equal(image, tiled(frames[at], 20))


def test_the_tables_have_every_number_of_the_demo(html, finished_demo):
    assert read_json(finished_demo / "metrics/reproduction.json")["published"] == []
    anomaly, likelihood = (
        read_json(finished_demo / f"metrics/{n}.json") for n in ("anomaly", "likelihood")
    )
    expected = []
    for model in MODELS:
        losses = load_losses(finished_demo / f"plots/{model}-losses.csv")
        for row in losses.itertuples():
            expected.append([str(row.epoch), *map(text.NATS, (row.train_loss, row.test_loss))])
        found, parts = likelihood[model], likelihood[model]["decomposition"]
        names = ("test_log_likelihood", "standard_error", "effective_samples")
        expected.append([model, *(text.NATS(found[name]) for name in names)])
        of_kl = (text.NATS(parts[name]) for name in ("kl", "mutual_information", "aggregated_kl"))
        active = f"{parts['active_units']} of {len(parts['kl_by_dimension'])}"
        expected.append([model, *of_kl, active])
    for kind, scores in anomaly["kinds"].items():
        found = [scores[name] for name in ("kl", "reconstruction", "negative_elbo")]
        areas = [f"{each['roc_auc']:.3f} ({each['average_precision']:.3f})" for each in found]
        expected.append([kind, *areas])
    expected.append(["KL of the noise image, nats", text.NATS(anomaly["noise_kl"])])
    above = 100 * anomaly["training_share_above_noise"]
    expected.append(["% of the training images above it", text.NATS(above)])
    assert [row for row in expected if row not in html.rows] == []
    for deep, flat in zip(likelihood["20d"]["units"], likelihood["2d"]["units"], strict=True):
        (row,) = (row for row in html.rows if row[0] == deep["loss"])
        assert len(row[1]) > 10  # what it is
        assert row[2:] == [text.NATS(deep["value"]), text.NATS(flat["value"])]


@pytest.fixture
def report_of(tmp_path) -> Callable[..., str]:
    """Writes the committed run's report, with other parameters, published numbers or facts."""
    published = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    run = published[(published["source"] == "post") & (published["split"] != "noise")]
    for model, rows in run.groupby("model"):
        ours = rows.pivot(index="epoch", columns="split", values="ours").add_suffix("_loss")
        write_csv(tmp_path / f"{model}-losses.csv", ours.reset_index())
    losses = {model: load_losses(tmp_path / f"{model}-losses.csv") for model in MODELS}
    facts = {name: read_json(ROOT / f"metrics/{name}.json") for name in ("anomaly", "likelihood")}
    facts |= {"sizes": {"20d": 20, "2d": 2}, "versions": "", "parameters": {}, "checksums": {}}
    facts |= dict.fromkeys(("labelled", "playable", "studied"), True)

    def write(changed=None, folder: Path = ROOT / "data/published", **other) -> str:
        params = check_params(ROOT / "params.yaml", changed)
        judged = judge_run(params, folder, ROOT / "studies", tmp_path, ROOT / "metrics")
        return text.report_text(judged, losses, params, **facts | other)

    return write


def test_each_published_value_has_its_sign_and_difference(report_of):
    shown = report_of()
    values = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    assert f"Of the {len(values)} published values" in shown
    for verdict, count in values["verdict"].value_counts().items():
        assert f"- **{count}** {verdict} {text.SIGNS[verdict]}" in shown
    for value in values[values["split"] != "noise"].itertuples():
        sign = text.SIGNS[value.verdict]
        assert f"{value.published:.3f} {sign} | {value.difference:+.3f}" in shown
    assert "| the post's | 51.763 |" in shown
    assert "a model that was trained on 234 batches before" in shown
    assert "notebook's run is replayed, 40 of 40 losses; other seeds reach 8 to 28.**" in shown
    assert "| 2d test | 0.538 | 1.0 | 68 % |" in shown
    assert "Parameters that differ" not in shown
    head, *_, foot = shown.split("\n## ")
    for part in (head, foot):
        assert "*Variational Autoencoder Code and Experiments*" in part
        assert "https://github.com/alineberry/alcore/blob/8139058/notebooks/VAE.ipynb" in part
    assert "`git log -1 dvc.lock`" in foot


def test_another_papers_report_has_nothing_of_the_posts(report_of, tmp_path):
    folder = shutil.copytree(ROOT / "data/published", tmp_path / "published")
    (folder / "tables.yaml").write_text(
        "about: Smith (2021) trained one.\n"
        "data: {dataset: mnist, mode: threshold, threshold: 128}\n"
        "tables: [{source: smith-2021, model: 20d, file: notebook-2019-06-05-20d.csv,\n"
        "          epochs: 10, replay: {train: 0.05, test: 0.25}}]\n"
    )
    shown = report_of(folder=folder, studied=False)
    assert "| smith-2021, 20d losses | 20 | 0 | 0 |" in shown
    assert "**The smith-2021's run is replayed, 20 of 20 losses; other" in shown
    assert "| train, smith-2021 | train, ours - smith-2021 |" in shown
    assert shown.startswith("# Two variational autoencoders, trained on mnist\n")
    for word in ("Variational Autoencoder Code", "the post's", "2019", "notebook", "before", "\n."):
        assert word not in shown, word


@pytest.mark.parametrize(
    ("key", "value", "others", "change"),
    [
        ("train.learning_rate", 0.003, "20d and the 2d", "0.003 instead of 0.001"),
        ("train-2d.hidden_sizes", [400], "2d", "[400] instead of [400, 150]"),
        ("seed", 3, None, "3 instead of 199"),
        ("anomaly.threshold_percentile", 99.0, None, "99.0 instead of 99.9"),
        ("likelihood.samples", 50, None, "50 instead of 30"),
        ("visualize.neighbours", 10, None, "10 instead of 100"),
    ],
)
def test_a_report_names_changed_parameters_at_its_top(report_of, key, value, others, change):
    shown = report_of({key: value}, studied=False)
    top = shown.partition("## Verdicts")[0]
    assert f"**Parameters that differ from the committed results': `{key}` {change}.**" in top
    assert (f"stand beside the {others} model without a verdict" in top) == (others is not None)
    counts = {None: 0, "2d": 40, "20d and the 2d": 81}
    assert (f"- **{counts[others]}** other parameters ·" in top) == (others is not None)
    # A study of another model explains nothing.
    assert ("on 234 batches before" in shown) == (others is None)
    assert "studies/likelihood.csv" not in shown


def test_the_published_parameters_are_those_of_params_yaml(params):
    """All that decide a result: those of no training stand in tables.yaml."""
    index = YAML(typ="safe").load(ROOT / "data/published/tables.yaml")
    values = params.model_dump(by_alias=True)
    for key, value in index["parameters"].items():
        group, _, name = key.partition(".")
        found = values[group][name] if name else values[group]
        assert value == (list(found) if isinstance(found, tuple) else found), key
    groups = ("visualize", "anomaly", "likelihood")
    deciding = {f"{group}.{name}" for group in groups for name in values[group]}
    assert deciding - set(index["parameters"]) == {"anomaly.batch_size"}


def test_a_report_of_other_data_mentions_no_published_number(report_of):
    shown = report_of({"download.dataset": "fashion-mnist"}, labelled=False, studied=False)
    assert shown.startswith("# Two variational autoencoders, trained on fashion-mnist\n")
    assert "`download.dataset` fashion-mnist instead of mnist" in shown
    assert "There are no published numbers" in shown
    words = ("Experiments", "the post's", "2019", "notebook", "## Verdicts", "Larochelle")
    for word in (*words, "boundaries"):
        assert word not in shown, word
    # Apart from a kind of anomaly, and the data of `make demo`.
    assert "digit" not in shown.replace("scikit-learn digits", "").replace("learn's digits", "")
    assert "| Epoch | train, ours | test, ours |" in shown


@pytest.mark.parametrize("epoch", [10, 99])
def test_the_summary_measures_test_losses_in_deviations_of_seeds(tmp_path, epoch):
    rows, intervals = load_study(ROOT / "studies/seeds.csv")
    values = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])
    for name in ("anomaly", "likelihood"):
        shutil.copy(ROOT / f"metrics/{name}.json", tmp_path)
    for model in MODELS:
        last = {"epoch": epoch, "train_loss": 89.0, "test_loss": 90.0}
        write_json(tmp_path / f"{model}.json", last)
    changes = {"seed": "3 instead of 199"}
    report.summarise(Verdicts(None, values, intervals, {}, [], changes, None), tmp_path)
    found = read_json(tmp_path / "reproduction.json")["changed_parameters"]
    assert found == ["seed 3 instead of 199"]
    summary = read_json(tmp_path / "summary.json")["20d"]
    assert (summary["train_loss"], summary["test_loss"]) == (89.0, 90.0)
    # The study has no epoch 99.
    assert ("test_loss_in_deviations" in summary) == (epoch == 10)
    if epoch == 10:
        seeds = rows[(rows["model"] == "20d") & (rows["epoch"] == 10)]["test_loss"]
        expected = (90.0 - seeds.mean()) / seeds.std()
        assert summary["test_loss_in_deviations"] == pytest.approx(expected, abs=1e-3)


def test_the_study_of_the_likelihood_is_of_the_committed_models():
    stages = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    hashes = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    bias = pd.read_csv(ROOT / "studies/likelihood.csv")
    assert set(bias["model"]) == set(MODELS)
    for row in bias.itertuples():
        assert row.weights == hashes[f"models/{row.model}.safetensors"]


def test_the_report_names_files_parameters_versions_and_commands(html, finished_demo, params):
    rows = {row[0]: row[-1] for row in html.rows}
    models = [finished_demo / f"models/{name}.safetensors" for name in MODELS]
    for path in (*sum(raw_files(finished_demo / "data/raw").values(), ()), *models):
        assert rows[path.relative_to(finished_demo).as_posix()] == md5(path)
    assert rows["seed"] == str(params.seed)
    assert rows["train"].startswith("epochs: 10, batch_size: 32, learning_rate: 0.001, ")
    assert rows["download.dataset"] == '"digits"'
    assert set(report.GROUPS) <= set(rows)
    for name in ("numpy", "scipy", "matplotlib", "pyarrow", "torch", "mlflow"):
        assert f"{name} {version(name).partition('+')[0]}" in html.text
    for command in ("make repro", "make check", "make verify"):
        assert command in html.text


def test_html_in_the_text_is_escaped(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    text = page('# 1 < 2 {x} & "y"\n\n## <b>\n\n![A "b" <c>](a.png "d & <e>")\n', tmp_path, {})
    found = Page(text)
    assert found.text.count('1 < 2 {x} & "y"') == 2
    assert "d & <e>" in found.text
    assert [image["alt"] for image in found.all("img")] == ['A "b" <c>']
    assert not {"b", "c", "e"} & {tag for tag, _ in found.elements}


def test_a_missing_figure_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*/plots/gone.png .*; run `dvc repro`"):
        page('# Report\n\n![What](plots/gone.png "Caption")\n', tmp_path, {})


def test_a_report_says_if_the_page_cannot_run_the_models(report_of):
    found = report_of(playable=False)
    assert "The models cannot run in this page" in found
    assert "[plane]" not in found and "[draw]" not in found and "[training]" in found
