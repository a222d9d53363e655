"""The page in a real browser: drawn, within its width, in light and dark, on paper, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from idp.report.write import write_report

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium (make test does it as root)"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, run, tmp_path):
    """A factory: the page of a run or of several in a window, what was said on the console and what was asked for."""
    pages = []

    def open_page(width, scheme="light", folders=None):
        write_report(folders or [run(text=True)], tmp_path)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_function(
            "document.querySelectorAll('.chart').length == document.querySelectorAll('.chart svg').length"
        )
        pages.append(page)
        return page, said, asked

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("wide", 1200, "light"), ("dark", 1200, "dark"), ("phone", 390, "light")]
)
def test_it_is_drawn_within_its_width_and_asks_for_nothing(opened, name, width, scheme):
    page, said, asked = opened(width, scheme)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    assert page.locator(".chart svg").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.chart svg')].map(e => e.getBoundingClientRect().right))"
    )
    assert widest <= width
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report-{name}.png", full_page=True)


def brightness(page, selector, style):
    """How bright a colour of the page is, 0 to 255."""
    color = page.evaluate("([s, p]) => getComputedStyle(document.querySelector(s))[p]", [selector, style])
    return sum(float(part) for part in color.split("(")[1].rstrip(")").split(",")[:3]) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper_in_charts_too(opened, scheme):
    page, _, _ = opened(1200, scheme)
    paper = brightness(page, "body", "backgroundColor")
    assert (paper > 200) is (scheme == "light")
    for selector, style in (("h1", "color"), ("td", "color"), (".chart svg text", "fill")):
        assert abs(brightness(page, selector, style) - paper) > 120


def test_on_paper_all_is_unfolded_on_white(opened):
    page, _, _ = opened(1200, "dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert brightness(page, "body", "backgroundColor") > 250 and brightness(page, ".chart svg text", "fill") < 100
    assert page.locator("details:not([open])").count() == 0
    assert len(page.pdf()) > 20_000


def test_the_arm_of_the_map_of_choices_can_be_picked(opened):
    page, _, _ = opened(1200)
    cells = page.locator("#chart-choices svg .mark-rect path")
    before = cells.count()
    page.select_option("#chart-choices select", "oracle")
    page.wait_for_timeout(300)
    assert before > 0 and cells.count() != before


def test_several_runs_are_drawn(opened, run):
    page, said, _ = opened(390, folders=[run("a"), run("b", seed=1)])
    assert said == [] and page.locator(".chart svg").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_role("heading", name="Over seeds").count() == 1
