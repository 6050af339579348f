"""MLflow's pages of three trainings in a headless Chromium."""

import re
import shutil
import time

import pytest
from mlflow import MlflowClient

from conftest import ROOT, call, commit_all, copy_demo
from mlflow_server import Server
from vae.rebuild.build import override_params

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium drives the browser: make test-all"
)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1700,3200"
)
SHORT = "2d epochs=3 learning_rate=0.003"
TEXT = "document.body.innerText"


@pytest.fixture(scope="module")
def demo(finished_demo, tmp_path_factory):
    """A demo with its runs, and a shorter one of the 2-d model with another learning rate."""
    folder = copy_demo(finished_demo, tmp_path_factory.mktemp("copy") / "demo")
    commit_all(folder)
    override_params(folder / "params.yaml", {"train": {"epochs": 3, "learning_rate": 0.003}})
    call(folder, "python", "src/train.py", "2d", "data/binarized")
    return folder


@pytest.fixture(scope="module")
def site(demo):
    """The address of MLflow's pages, by plain `mlflow ui`."""
    server = Server(demo, "ui")
    server.start()
    yield f"{server.uri}/"
    server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in [*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def client(demo):
    return MlflowClient(f"sqlite:///{demo}/mlflow.db")


@pytest.fixture(scope="module")
def runs(client):
    """The ids of the runs by name."""
    return {run.info.run_name: run.info.run_id for run in client.search_runs(["1"])}


def wait_for(browser, script: str, seconds: float = 40):
    """Return the script's value as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        page = browser.execute_script(f"return {TEXT}")
        assert time.monotonic() < end, f"no {script} in: {page}"
        time.sleep(0.2)
    return value


def wait_for_text(browser, *texts: str) -> None:
    for text in texts:
        wait_for(browser, f"{TEXT}.includes({text!r})")


def link(client: MlflowClient, text: str) -> str:
    """The target of a link in the experiment's note."""
    note = client.get_experiment("1").tags["mlflow.note.content"]
    return note.partition(f"[{text}](")[2].partition(")")[0]


def test_readmes_link_opens_the_table_of_runs(client, site, browser):
    readme = (ROOT / "README.md").read_text()
    (page,) = re.findall(r"^\[runs\]: http://127\.0\.0\.1:5000/(#.*)$", readme, re.MULTILINE)
    assert page == link(client, "table")
    browser.get(site + page)
    names = ("20d", SHORT, "test_loss", "epochs", "learning_rate", "0.003", "train-20d")
    wait_for_text(browser, *names)


def test_each_model_has_charts_of_its_own(client, runs, site, browser):
    """The trained models' images, then losses, then the likelihood."""
    browser.get(site + link(client, "2d"))
    images = (
        "[...document.querySelectorAll('img')].filter(image => image.naturalWidth > 0"
        " && decodeURIComponent(image.src).includes('images~manifold+step+0'))"
        ".map(image => image.src)"
    )
    wait_for(browser, f"{images}.length >= 2")
    shown = "".join(browser.execute_script(f"return {images}"))
    assert runs["2d"] in shown
    assert runs[SHORT] in shown
    titles = ("images/manifold", "test_loss", "scores/test_log_likelihood")
    wait_for_text(browser, f"{SHORT} (test_loss)", *titles)
    text = browser.execute_script(f"return {TEXT}")
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "20d (test_loss)" not in text
    title = "document.querySelector('.js-plotly-plot').querySelector('.xtitle').textContent"
    assert browser.execute_script(f"return {title}") == "Step"


def test_a_runs_own_page_shows_its_image(runs, site, browser):
    """Not only the parameters above it."""
    browser.get(f"{site}#/experiments/1/runs/{runs['2d']}/model-metrics")
    shown = (
        "[...document.querySelectorAll('img')].find(image => image.naturalWidth"
        " && image.src.includes('images~manifold')"
        " && image.getBoundingClientRect().height)"
    )
    wait_for(browser, f"!!{shown}")
    seen = browser.execute_script(
        f"const image = {shown};"
        "let card = image;"
        "while (getComputedStyle(card).overflowY != 'auto') card = card.parentElement;"
        "const [one, other] = [image, card].map(each => each.getBoundingClientRect());"
        "return (Math.min(one.bottom, other.bottom) - one.top) / one.height"
    )
    assert seen > 0.5


def test_the_comparison_offers_epochs_and_learning_rate_first(runs, site, browser):
    ids = ",".join(f'"{run_id}"' for run_id in runs.values())
    browser.get(f'{site}#/compare-runs?runs=[{ids}]&experiments=["1"]')
    text = wait_for(browser, f"{TEXT}.match(/Parameters:([^]*)Metrics:/)?.[1].trim()")
    assert text.split()[:2] == ["epochs", "learning_rate"]


def test_the_page_of_models_lists_each_training(site, browser):
    browser.get(f"{site}#/experiments/1/models?workflowType=machine_learning")
    wait_for_text(browser, SHORT.replace(".", ","))
    assert browser.execute_script(f"return {TEXT}").count("Ready") == 3


def test_the_notes_links_lead_to_report_and_figures(runs, site, browser):
    """Without `Show more`."""
    browser.get(f"{site}#/experiments/1/runs/{runs['2d']}")
    anchor = "[...document.querySelectorAll('a')].find(a => a.textContent == '{}')"
    for name in ("manifold.gif", "report.html"):
        wait_for(browser, f"{anchor.format(name)}?.checkVisibility()")
    browser.execute_script(f"{anchor.format('manifold.gif')}.click()")
    browser.switch_to.window(browser.window_handles[-1])
    wait_for(browser, "location.hash.endsWith('/artifacts/plots/manifold.gif')")
    widths = "[...document.querySelectorAll('img')].map(image => image.naturalWidth)"
    wait_for(browser, f"{widths}.includes(560)")
