"""The demo's report in Chromium, with the network off."""

import json
import re
import shutil
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import call
from exact.functional import sigmoid
from vae.data import load_split
from vae.inference import anomaly_scores, posterior_means
from vae.model import load_model

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: make test-all")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and chromedriver")

# The report's images: one per PNG, but for those that compare with published numbers.
FIGURES = 11
# The gray values of a canvas.
DIGIT = """const canvas = document.querySelector(arguments[0]);
    const pixels = canvas.getContext('2d').getImageData(0, 0, 28, 28).data;
    return [...pixels].filter((_, index) => index % 4 === 0)"""
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
FLAGS += " --disable-background-networking --disable-component-update --disable-sync"
IMAGES = "return [...document.images].map(image => [image.complete, image.naturalWidth])"
# Elements that are wider than the page and not in a box that scrolls; on paper nothing scrolls.
CUT = """return [...document.querySelectorAll('table, figure, img, pre, p')].filter(element =>
    (matchMedia('print').matches || !element.closest('.wide')) &&
    element.getBoundingClientRect().right > innerWidth + 1).map(element => element.tagName)"""
DRAW = """return [...document.querySelectorAll('h2[id^=draw], h2[id^=draw] + p, a[href^="#draw"]')]
    .map(element => element.checkVisibility())"""
COLOR = "return getComputedStyle(document.body).{}.match(/\\d+/g).map(Number)"


@pytest.fixture(scope="module")
def browser(finished_demo, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    # In a folder of its own, without the files that lie beside it.
    alone = Path(shutil.copy(finished_demo / "report.html", tmp_path_factory.mktemp("alone")))
    yield lambda **wishes: opened(driver, alone.as_uri(), **wishes)
    driver.quit()


def opened(driver, address, medium="screen", width=1280, script=True, **features):
    """Open the page on a screen of this width, or on paper, with these media features."""
    chosen = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": chosen})
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    driver.get(address)
    return driver


def test_every_figure_is_shown_and_nothing_is_refused(browser):
    page = browser()
    shown = page.execute_script(IMAGES)
    assert len(shown) == FIGURES + 2  # those of the slider
    assert all(complete and width > 0 for complete, width in shown)
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 768])
def test_only_wide_tables_and_charts_scroll_sideways(browser, width):
    page = browser(width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    assert page.execute_script(CUT) == []


def test_the_page_is_light_or_dark_as_the_reader_prefers(browser):
    filters = """return ['losses', 'anomalies', 'manifold'].map(name => getComputedStyle(
        document.querySelector(`[data-name=${name}]`)).filter.startsWith('invert'))"""
    for scheme in ("light", "dark"):
        page = browser(prefers_color_scheme=scheme)
        paper, ink = (page.execute_script(COLOR.format(n)) for n in ("backgroundColor", "color"))
        assert min(paper) > 240 if scheme == "light" else max(paper) < 40
        assert abs(sum(paper) - sum(ink)) > 500
        # Charts turn dark, too; digits stay white on black.
        assert page.execute_script(filters) == [scheme == "dark", False, False]


@pytest.mark.parametrize("inches", [(8.27, 11.69), (8.5, 11)], ids=["A4", "Letter"])
def test_a_print_is_light_complete_and_at_most_eight_pages(browser, inches):
    page = browser(medium="print", width=680, prefers_color_scheme="dark")
    assert page.execute_script(COLOR.format("backgroundColor")) == [255, 255, 255]
    seen = """return [...document.images].filter(image => image.checkVisibility())
        .map(image => image.currentSrc.slice(0, 14))"""
    assert page.execute_script(seen) == ["data:image/png"] * FIGURES
    assert page.execute_script(CUT) == []
    assert page.execute_script(DRAW) == [False] * 3
    split = """return [...document.querySelectorAll('table')]
        .map(table => getComputedStyle(table).breakInside)"""
    assert set(page.execute_script(split)) == {"avoid"}
    paper = dict(zip(("paperWidth", "paperHeight"), inches, strict=True))
    printed = b64decode(page.execute_cdp_cmd("Page.printToPDF", paper)["data"])
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8


def test_without_javascript_the_figures_stay_and_no_place_is_empty(browser):
    page = browser(script=False)
    assert len(page.execute_script(IMAGES)) == FIGURES
    places = "return [...document.querySelectorAll('.play')].map(p => p.checkVisibility())"
    assert page.execute_script(places) == [False] * 3
    assert page.execute_script(DRAW) == [False] * 3


def test_the_page_scores_and_places_images_as_python_does(browser, finished_demo):
    """Within a hundredth of a nat, or of a latent unit."""
    page = browser()
    images = load_split(finished_demo / "data/binarized", "test").images[:100]
    models = {n: load_model(finished_demo / f"models/{n}.safetensors") for n in ("20d", "2d")}
    scores = "return arguments[1].map(image => vae.scores(vae.models[arguments[0]], image))"
    found = pd.DataFrame(page.execute_script(scores, "20d", images.tolist()))
    for name, expected in anomaly_scores(models["20d"], images).items():
        assert np.abs(found[name] - expected).max() < 1e-2, name
    means = f"{scores}.map(({{mean}}) => [...mean])"
    placed = np.array(page.execute_script(means, "2d", images.tolist()))
    assert np.abs(posterior_means(models["2d"], images) - placed).max() < 1e-2


def find(page, selector: str):
    return page.find_element("css selector", selector)


def point(page) -> list[float]:
    """The coordinates that the plane names."""
    said = find(page, "#plane [role=status]").text
    return [float(part) for part in re.match(r"\((.*), (.*)\)", said).groups()]


def choose(page, view: str) -> None:
    page.find_element("xpath", f"//label[contains(., '{view}')]/input").click()


def test_arrow_keys_move_the_point_on_the_plane(browser):
    page = browser()
    plane = find(page, "#plane .map")
    plane.click()
    before, digit = point(page), page.execute_script(DIGIT, "#plane .digit")
    plane.send_keys(*[webdriver.Keys.SHIFT + webdriver.Keys.ARROW_RIGHT] * 5)
    x, y = point(page)
    assert x > before[0] and y == pytest.approx(before[1], abs=0.05)
    assert page.execute_script(DIGIT, "#plane .digit") != digit


@pytest.mark.parametrize("view", ["decoded images", "test images"])
def test_a_pointer_on_the_plane_shows_the_digit_there(browser, finished_demo, view):
    page = browser()
    choose(page, view)
    plane = find(page, "#plane .map")
    webdriver.ActionChains(page).move_to_element_with_offset(plane, 100, -50).perform()
    model = load_model(finished_demo / "models/2d.safetensors")
    expected = 255 * sigmoid(model.decode(torch.tensor([point(page)]))).numpy()[0]
    shown = np.array(page.execute_script(DIGIT, "#plane .digit"))
    # The page shows two decimals of the coordinates.
    assert np.abs(shown - expected).max() < 8


def test_a_point_beyond_the_plane_is_marked_at_its_edge(browser):
    page = browser()
    plane = find(page, "#plane .map")
    at_edge = "const pixels = arguments[0].getContext('2d').getImageData(540, 0, 20, 20).data;"
    at_edge += " return [...pixels].filter((_, at) => at % 4 === 2 && pixels[at - 2] > 250).length"
    plane.click()
    inside = page.execute_script(at_edge, plane)
    assert "beyond" not in find(page, "#plane [role=status]").text
    choose(page, "test images")
    webdriver.ActionChains(page).move_to_element_with_offset(plane, 270, -270).click().perform()
    choose(page, "decoded images")
    assert ", beyond the edge of the plane" in find(page, "#plane [role=status]").text
    assert page.execute_script(at_edge, plane) > inside + 20


def test_a_drawn_digit_gets_the_scores_of_score_py(browser, finished_demo, tmp_path):
    page = browser()
    sheet = find(page, "#draw .sheet")
    page.find_element("xpath", "//button[.='Clear']").click()
    chain = webdriver.ActionChains(page).move_to_element_with_offset(sheet, 0, -80).click_and_hold()
    chain.move_by_offset(0, 80).move_by_offset(0, 80).release().perform()
    image = np.array(page.execute_script(DIGIT, "#draw .sheet"), np.uint8) // 255
    assert 20 < image.sum() < 100
    np.save(tmp_path / "drawn.npy", image)
    command = [sys.executable, "src/tools/score.py", "--json", tmp_path / "drawn.npy"]
    found = call(finished_demo, *command, "--polarity", "light-on-dark")
    (row,) = json.loads(found)["images"]
    cells = [cell.text for cell in page.find_elements("css selector", "#draw tbody td")]
    for number, name in enumerate(("kl", "reconstruction", "negative_elbo")):
        assert float(cells[4 * number + 1]) == pytest.approx(row[name], abs=0.015)
        assert float(cells[4 * number + 2]) == pytest.approx(row[f"{name}_percentile"], abs=0.2)
    verdict = find(page, "#draw [role=status]").text
    assert verdict.lower().startswith(row["verdict"])


def test_one_slider_moves_losses_reconstructions_and_manifold(browser):
    page = browser()
    shown = """return [...document.querySelectorAll('#training img, #training text')]
        .map(element => element.src || element.textContent)"""
    last = page.execute_script(shown)
    slider = find(page, "#training input")
    slider.send_keys(webdriver.Keys.HOME)
    first = page.execute_script(shown)
    assert all(one != other for one, other in zip(first, last, strict=True))
    assert first[1:3] == ["20d: no epoch has ended", "2d: no epoch has ended"]
    assert slider.get_attribute("aria-valuetext") == "before training"
    slider.send_keys(webdriver.Keys.ARROW_RIGHT)
    assert page.execute_script(shown)[0] != first[0]


def test_all_controls_have_names_and_work_by_keyboard(browser):
    page = browser()
    named = """return [...document.querySelectorAll('.play button, .play input, .play canvas')]
        .filter(e => e.tabIndex >= 0 || e.tagName === 'CANVAS')
        .filter(e => !(e.getAttribute('aria-label') || e.textContent || e.labels?.length))"""
    assert page.execute_script(named) == []
    reached = "return [...document.querySelectorAll('.map, .sheet')].map(e => e.tabIndex)"
    assert page.execute_script(reached) == [0, 0]
