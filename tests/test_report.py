"""The report of the demo and of the committed run; its script is tested in tests/services."""

import hashlib
import json
import re
import shutil
from base64 import b64decode, b64encode
from html import unescape
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
from vae.data import raw_files, tiled
from vae.files import md5, read_json, write_csv, write_json
from vae.frames import load_frames
from vae.losses import LOSSES, load_losses
from vae.params import MODELS, check_params
from vae.rebuild.compare import hashes
from vae.report import text
from vae.report.page import page
from vae.reproduction.intervals import load_study
from vae.reproduction.verdicts import Verdicts, judge_run

VALUES = pd.DataFrame(read_json(ROOT / "metrics/reproduction.json")["published"])


@pytest.fixture(scope="module")
def html(finished_demo: Path) -> str:
    return (finished_demo / "report.html").read_text(encoding="utf-8")


def elements(html: str, tag: str) -> list[dict[str, str]]:
    """The attributes of each element of this kind."""
    found = re.findall(rf"<{tag}\b([^>]*)>", html)
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', attributes)) for attributes in found]


def table_rows(html: str) -> list[list[str]]:
    """The texts of each row's cells."""
    rows = re.findall("<tr>(.*?)</tr>", html, re.DOTALL)
    cells = [re.split(r"<t[dh].*?>", row)[1:] for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_the_page_may_run_its_own_script_and_load_nothing(html):
    assert len(html) < 8e6
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    known = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    assert elements(html, "meta")[1]["content"] == f"{policy}{known}'"


def test_every_link_of_the_report_leads_to_a_chapter(html):
    names = [attributes["id"] for attributes in elements(html, "h2")]
    assert [link["href"] for link in elements(html, "a")] == [f"#{name}" for name in names]
    assert len(set(names)) == len(names) > 5


def test_the_report_holds_and_describes_every_image_of_plots(html, finished_demo):
    images = {image["data-name"]: image for image in elements(html, "img")}
    paths = {path.stem: path for path in (finished_demo / "plots").glob("*.png")}
    # These compare with published numbers, of which the digits have none.
    assert images.keys() == paths.keys() - {"likelihood", "reproduction"}
    for name, image in images.items():
        content = b64encode(paths[name].read_bytes()).decode()
        assert image["src"] == f"data:image/png;base64,{content}" and len(image["alt"]) > 10


def test_the_script_gets_the_models_the_losses_and_the_frames(html, finished_demo):
    data = json.loads(re.search('id="data">(.*?)</script>', html)[1])
    assert data["models"].keys() == {*MODELS}
    for name in MODELS:
        losses = load_losses(finished_demo / f"plots/{name}-losses.csv")
        assert data["losses"][name]["test_loss"] == losses["test_loss"].tolist()
    training = data["training"]
    assert training["epochs"] == sorted(training["epochs"])
    assert (training["epochs"][0], training["epochs"][-1]) == (0, 10)
    assert training["manifold"][0] != training["manifold"][1]
    for at, kind in ((0, "frames"), (-1, "epochs")):
        frames = load_frames(finished_demo / f"models/2d-{kind}.arrow", "manifold")
        shown = Image.open(BytesIO(b64decode(training["manifold"][at])))
        assert np.array_equal(shown, tiled(frames[at], 20))


def test_the_tables_have_every_number_of_the_demo(html, finished_demo):
    metrics = finished_demo / "metrics"
    anomaly, likelihood = (read_json(metrics / f"{n}.json") for n in ("anomaly", "likelihood"))
    expected = [["KL of the noise image, nats", text.NATS(anomaly["noise_kl"])]]
    for model in MODELS:
        losses = load_losses(finished_demo / f"plots/{model}-losses.csv")[["epoch", *LOSSES]]
        for epoch, *values in losses.itertuples(index=False):
            expected.append([str(epoch), *map(text.NATS, values)])
        found, parts = likelihood[model], likelihood[model]["decomposition"]
        names = ("test_log_likelihood", "standard_error", "effective_samples")
        expected.append([model, *(text.NATS(found[name]) for name in names)])
        of_kl = [text.NATS(parts[name]) for name in ("kl", "mutual_information", "aggregated_kl")]
        active = f"{parts['active_units']} of {len(parts['kl_by_dimension'])}"
        expected.append([model, *of_kl, active])
    for kind, scores in anomaly["kinds"].items():
        areas = [scores[name] for name in ("kl", "reconstruction", "negative_elbo")]
        shown = [f"{each['roc_auc']:.3f} ({each['average_precision']:.3f})" for each in areas]
        expected.append([kind, *shown])
    for units in zip(likelihood["20d"]["units"], likelihood["2d"]["units"], strict=True):
        expected.append([units[0]["loss"], *(text.NATS(unit["value"]) for unit in units)])
    rows = table_rows(html)
    # The second cell of a row of another unit says what it is.
    rows += [[loss, *values] for loss, about, *values in rows if len(about) > 10]
    assert [row for row in expected if row not in rows] == []


@pytest.fixture
def report_of(tmp_path):
    """Writes the committed run's report, with other parameters, published numbers or facts."""
    for model, rows in VALUES[VALUES["source"] == "notebook"].groupby("model"):
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
    for verdict, count in VALUES["verdict"].value_counts().items():
        assert f"- **{count}** {verdict} {text.SIGNS[verdict]}" in shown
    for value in VALUES[VALUES["split"] != "noise"].itertuples():
        sign = text.SIGNS[value.verdict]
        assert f"{value.published:.3f} {sign} | {value.difference:+.3f}" in shown
    assert "| the post's | 51.763 |" in shown
    assert "a model that was trained on 234 batches before" in shown
    assert "notebook's run is replayed, 40 of 40 losses; other seeds reach 8 to 28.**" in shown
    assert "| 2d test | 0.538 | 1.0 | 68 % |" in shown
    assert "Parameters that differ" not in shown
    assert shown.count("https://github.com/alineberry/alcore/blob/8139058/notebooks/VAE.ipynb") == 2


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
    assert shown.startswith("# Two variational autoencoders, trained on mnist\n")
    words = "Variational Autoencoder Code|the post's|2019|notebook|before|\n\\."
    assert re.findall(words, shown) == []


@pytest.mark.parametrize(
    ("key", "change", "others", "count"),
    [
        ("train.learning_rate", "0.003 instead of 0.001", "20d and the 2d", 81),
        ("train-2d.hidden_sizes", "[400] instead of [400, 150]", "2d", 40),
        ("likelihood.samples", "50 instead of 30", None, 0),
        ("seed", "3 instead of 199", None, 0),
    ],
)
def test_a_report_names_changed_parameters_at_its_top(report_of, key, change, others, count):
    value = json.loads(change.partition(" ")[0])
    shown = report_of({key: value, "anomaly.batch_size": 5, "tracking.enabled": False})
    top = shown.partition("## Verdicts")[0]
    assert f"**Parameters that differ from the committed results': `{key}` {change}.**" in top
    assert (f"stand beside the {others} model without a verdict" in top) == (count > 0)
    assert (f"- **{count}** other parameters ·" in top) == (count > 0)
    # The study of earlier training explains the post's own 2-d model alone.
    assert ("on 234 batches before" in shown) == (count == 0)


def test_the_published_parameters_are_those_of_params_yaml(params):
    """All that decide a result: those of no training stand in tables.yaml."""
    stated = YAML(typ="safe").load(ROOT / "data/published/tables.yaml")["parameters"]
    values = pd.json_normalize(params.model_dump(mode="json", by_alias=True), max_level=1).iloc[0]
    assert {key: values[key] for key in stated} == stated
    groups = ("visualize.", "anomaly.", "likelihood.")
    deciding = {key for key in values.index if key.startswith(groups)}
    assert deciding - stated.keys() == {"anomaly.batch_size"}


def test_a_report_of_other_data_mentions_no_published_number(report_of):
    shown = report_of({"download.dataset": "fashion-mnist"}, labelled=False, studied=False)
    assert shown.startswith("# Two variational autoencoders, trained on fashion-mnist\n")
    assert "`download.dataset` fashion-mnist instead of mnist" in shown
    assert "There are no published numbers" in shown
    words = "likelihood.csv|Experiments|the post's|2019|notebook|## Verdicts|Larochelle|boundaries"
    assert re.findall(words, shown) == []
    # Apart from a kind of anomaly, and the data of `make demo`.
    assert "digit" not in re.sub("learn('s)? digits", "", shown)
    assert "| Epoch | train, ours | test, ours |" in shown


@pytest.mark.parametrize("epoch", [10, 99])
def test_the_summary_measures_test_losses_in_deviations_of_seeds(tmp_path, epoch):
    rows, intervals = load_study(ROOT / "studies/seeds.csv")
    for name in ("anomaly", "likelihood"):
        shutil.copy(ROOT / f"metrics/{name}.json", tmp_path)
    for model in MODELS:
        last = {"epoch": epoch, "train_loss": 89.0, "test_loss": 90.0}
        write_json(tmp_path / f"{model}.json", last)
    judged = Verdicts(None, VALUES, intervals, {}, [], {"seed": "3 instead of 199"}, None)
    report.summarise(judged, tmp_path)
    found = read_json(tmp_path / "reproduction.json")
    assert found["changed_parameters"] == ["seed 3 instead of 199"]
    summary = read_json(tmp_path / "summary.json")["20d"]
    seeds = rows[(rows["model"] == "20d") & (rows["epoch"] == 10)]["test_loss"]
    # The study has no epoch 99.
    expected = pytest.approx((90.0 - seeds.mean()) / seeds.std(), abs=1e-3) if epoch == 10 else None
    assert (summary["test_loss"], summary.get("test_loss_in_deviations")) == (90.0, expected)


def test_the_study_of_the_likelihood_is_of_the_committed_models():
    committed = hashes(ROOT / "dvc.lock")
    bias = pd.read_csv(ROOT / "studies/likelihood.csv", usecols=["model", "weights"])
    expected = {(model, committed[f"models/{model}.safetensors"]) for model in MODELS}
    assert {*bias.itertuples(index=False)} == expected


def test_the_report_names_files_parameters_and_versions(html, finished_demo, params):
    rows = {row[0]: row[-1] for row in table_rows(html)}
    models = [finished_demo / f"models/{name}.safetensors" for name in MODELS]
    for path in (*sum(raw_files(finished_demo / "data/raw").values(), ()), *models):
        assert rows[path.relative_to(finished_demo).as_posix()] == md5(path)
    assert rows["seed"] == str(params.seed)
    assert rows["train"].startswith("epochs: 10, batch_size: 32, learning_rate: 0.001, ")
    assert rows["download.dataset"] == '"digits"'
    assert set(report.GROUPS) <= set(rows)
    for name in ("numpy", "pyarrow", "torch"):
        assert f"{name} {version(name).partition('+')[0]}" in html


def test_html_in_the_text_is_escaped(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    found = page('# 1 < 2 {x} & "y"\n\n![A "b" <c>](a.png "d & <e>")\n', tmp_path, {})
    assert unescape(found).count('1 < 2 {x} & "y"') == 2
    assert "d &amp; &lt;e&gt;" in found
    assert [unescape(image["alt"]) for image in elements(found, "img")] == ['A "b" <c>']
    assert not re.search("<[ce]>", found)


def test_a_report_says_if_the_page_cannot_run_the_models(report_of):
    found = report_of(playable=False)
    assert "The models cannot run in this page" in found
    assert "[plane]" not in found and "[draw]" not in found and "[training]" in found
