"""What MLflow's pages show of two trainings, looked at in a headless Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import psutil
import pytest
from mlflow import MlflowClient

from conftest import ROOT, copy_demo
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


@pytest.fixture(scope="module")
def demo(finished_demo, tmp_path_factory):
    """A finished demo for the whole module."""
    return copy_demo(finished_demo, tmp_path_factory.mktemp("copy") / "demo")


@pytest.fixture(scope="module")
def store(demo):
    """A store with the demo's runs and a shorter one of another learning rate."""
    identity = {
        f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {
        key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"
    } | identity
    for command in (
        ["init", "--quiet"],
        ["add", "params.yaml"],
        ["commit", "--quiet", "-m", "parameters"],
    ):
        subprocess.run(["git", *command], cwd=demo, env=environment, check=True)
    override_params(demo / "params.yaml", {"train": {"epochs": 3, "learning_rate": 0.003}})
    training = [sys.executable, "src/train.py", "2d", "data/binarized"]
    subprocess.run(training, cwd=demo, env=environment, check=True, stdout=subprocess.DEVNULL)
    return f"sqlite:///{demo}/mlflow.db"


@pytest.fixture(scope="module")
def site(store):
    """The address of MLflow's pages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, "--backend-store-uri", store], **quiet)
    for _ in range(600):
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/"
    for process in [*psutil.Process(server.pid).children(recursive=True), server]:
        process.kill()
    server.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in [*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def wait_for(browser, script: str, seconds: float = 40):
    """The script's value as soon as there is one."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"no {script} in: {browser.execute_script(TEXT)}"
        time.sleep(0.2)
    return value


TEXT = "return document.body.innerText"
README = (ROOT / "README.md").read_text()


def link(client: MlflowClient, text: str) -> str:
    """Where the experiment's note leads."""
    note = client.get_experiment_by_name("vae-mnist").tags["mlflow.note.content"]
    return note.partition(f"[{text}](")[2].partition(")")[0]


def runs(client: MlflowClient) -> dict:
    experiment = client.get_experiment_by_name("vae-mnist").experiment_id
    return {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}


SHORT = "2d epochs=3 learning_rate=0.003"


def pictures(kind: str) -> str:
    """The pictures of a kind that are drawn: their addresses and heights on the page."""
    return (
        "[...document.querySelectorAll('img')]"
        f".filter(image => image.src.includes('{kind}~manifold') && image.naturalWidth > 0)"
        ".map(image => [image.src, image.getBoundingClientRect().y])"
    )


def test_readmes_link_opens_the_table_of_runs_by_what_they_differ_in_with_losses_and_stages(
    store, site, browser
):
    (place,) = re.findall(r"^\[runs\]: http://127\.0\.0\.1:5000/(#.*)$", README, re.MULTILINE)
    assert place == link(MlflowClient(store), "table")
    browser.get(site + place)
    names = [SHORT, "test_loss", "epochs", "learning_rate", "0.003", "train-20d"]
    for name in names:
        wait_for(browser, f"document.body.innerText.includes({name!r})")


def test_pictures_of_the_trained_models_come_first_then_curves_then_scores(store, site, browser):
    client = MlflowClient(store)
    browser.get(site + link(client, "curves and pictures"))
    wait_for(browser, f"{pictures('pictures')}.length >= 2")
    shown = browser.execute_script(f"return {pictures('pictures')}")
    for name in ("2d", SHORT):
        assert any(runs(client)[name] in source for source, _ in shown)
    assert len({height for _, height in shown}) == 1
    # The legend and the axis of one chart.
    for name in runs(client):
        wait_for(browser, f"document.body.innerText.includes('{name} (test_loss)')")
    wait_for(browser, "document.body.innerText.includes('scores/kl')")
    text = browser.execute_script(TEXT)
    assert text.index("pictures/manifold") < text.index("test_loss") < text.index("scores/kl")
    title = "document.querySelector('.js-plotly-plot').querySelector('.xtitle').textContent"
    assert browser.execute_script(f"return {title}") == "Step"


def test_pictures_by_epoch_open_at_a_step_that_a_short_run_has(store, site, browser):
    client = MlflowClient(store)
    browser.get(site + link(client, "curves and pictures"))
    wait_for(browser, f"{pictures('pictures_by_epoch')}.length >= 2")
    shown = browser.execute_script(f"return {pictures('pictures_by_epoch')}")
    for name in ("2d", SHORT):
        (source,) = (source for source, _ in shown if runs(client)[name] in source)
        assert "epoch-1" in source


def test_on_a_runs_own_page_its_parameters_leave_its_picture_in_the_card(store, site, browser):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("vae-mnist").experiment_id
    browser.get(f"{site}#/experiments/{experiment}/runs/{runs(client)['2d']}/model-metrics")
    shown = (
        "[...document.querySelectorAll('img')].find(image => image.naturalWidth"
        " && image.src.includes('pictures~manifold')"
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


def test_the_page_that_compares_runs_offers_epochs_and_learning_rate_first(store, site, browser):
    ids = ",".join(f'"{run_id}"' for run_id in runs(MlflowClient(store)).values())
    browser.get(f'{site}#/compare-runs?runs=[{ids}]&experiments=["1"]')
    text = wait_for(
        browser, "document.body.innerText.match(/Parameters:([^]*)Metrics:/)?.[1].trim()"
    )
    assert text.split()[:2] == ["epochs", "learning_rate"]


def test_the_page_of_models_lists_each_trainings_with_its_run(store, site, browser):
    experiment = MlflowClient(store).get_experiment_by_name("vae-mnist").experiment_id
    browser.get(f"{site}#/experiments/{experiment}/models?workflowType=machine_learning")
    wait_for(browser, f"document.body.innerText.includes({SHORT!r})")
    assert browser.execute_script(TEXT).count("Ready") == 3


def test_the_notes_link_leads_to_the_gif_in_the_artifact_view(store, site, browser):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("vae-mnist").experiment_id
    browser.get(f"{site}#/experiments/{experiment}/runs/{runs(client)['2d']}")
    gif = "[...document.querySelectorAll('a')].find(a => a.textContent == 'manifold.gif')"
    wait_for(browser, f"!!{gif}")
    browser.execute_script(f"{gif}.click()")
    browser.switch_to.window(browser.window_handles[-1])
    wait_for(browser, "location.hash.endsWith('/artifacts/plots/manifold.gif')")
    widths = "[...document.querySelectorAll('img')].map(image => image.naturalWidth)"
    wait_for(browser, f"{widths}.includes(560)")
