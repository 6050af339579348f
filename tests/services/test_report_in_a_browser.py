"""The demo's report in Chromium, with the network off."""

import json
import shutil
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: make test-all")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not (BROWSER and DRIVER):
    pytest.skip("needs Chromium and chromedriver", allow_module_level=True)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
IMAGES = (
    "return [...document.images].map(i => [i.complete, i.naturalWidth, i.currentSrc.slice(0, 14)])"
)
# What reaches beyond the page and is in no box that scrolls; paper has none.
CUT = """return [...document.querySelectorAll('table, figure, img, pre, p')].filter(element =>
    (matchMedia('print').matches || !element.closest('.wide')) &&
    element.getBoundingClientRect().right > innerWidth + 1).map(element => element.tagName)"""
COLOR = "return getComputedStyle(document.body).{}.match(/\\d+/g).map(Number)"


@pytest.fixture(scope="module")
def browser(finished_demo, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    # Alone in a folder, so that it finds nothing beside it.
    alone = Path(shutil.copy(finished_demo / "report.html", tmp_path_factory.mktemp("alone")))
    yield lambda **wishes: opened(driver, alone.as_uri(), **wishes)
    driver.quit()


def opened(driver, address, medium="screen", width=1280, **features):
    """Open the page on a screen this wide, or on paper, by a reader who prefers these features."""
    chosen = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": chosen})
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.get(address)
    return driver


def test_every_figure_is_shown_and_nothing_is_fetched_or_refused(browser):
    page = browser()
    shown = page.execute_script(IMAGES)
    assert len(shown) == 17
    assert all(complete and width > 0 for complete, width, _ in shown)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [
        params["request"]["url"] for params in sent if params["documentURL"] == page.current_url
    ]
    assert [url for url in urls if not url.startswith("data:")] == [page.current_url]
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 768])
def test_only_wide_tables_and_charts_scroll_sideways_and_each_in_its_box(browser, width):
    page = browser(width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    boxes = page.execute_script(
        "return [...document.querySelectorAll('div.wide')]"
        ".map(box => box.scrollWidth > box.clientWidth)"
    )
    assert boxes[1] and boxes[2], "the loss tables"
    assert page.execute_script(CUT) == []


def test_the_page_is_light_or_dark_as_the_reader_prefers(browser):
    for scheme, background in (("light", 240), ("dark", 40)):
        page = browser(prefers_color_scheme=scheme)
        paper, ink = (
            page.execute_script(COLOR.format(name)) for name in ("backgroundColor", "color")
        )
        assert min(paper) > background if scheme == "light" else max(paper) < background
        assert abs(sum(paper) - sum(ink)) > 500


def test_gifs_stand_still_for_who_prefers_reduced_motion_and_move_for_others(browser):
    kinds = [kind for *_, kind in browser(prefers_reduced_motion="reduce").execute_script(IMAGES)]
    assert set(kinds) == {"data:image/png"}
    kinds = [
        kind for *_, kind in browser(prefers_reduced_motion="no-preference").execute_script(IMAGES)
    ]
    assert kinds.count("data:image/gif") == 4


def test_on_paper_the_page_is_light_whole_and_shows_the_last_frames(browser):
    page = browser(medium="print", width=680, prefers_color_scheme="dark")
    assert page.execute_script(COLOR.format("backgroundColor")) == [255, 255, 255]
    seen = (
        "return [...document.images].filter(i => i.checkVisibility())"
        ".map(i => i.currentSrc.slice(0, 14))"
    )
    assert page.execute_script(seen) == ["data:image/png"] * 13
    assert page.execute_script(CUT) == []
