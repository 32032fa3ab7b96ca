"""The page in a headless Chromium: at desktop and phone size, light and dark, with and without images."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report import write_report
from tests.leaderboard.chromium import VARIABLE, Browser, find_chromium
from toy_parts import toy_catalogue

CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no Chromium on the PATH; install one or name it with {VARIABLE}"),
]

LUMINANCE = """(colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(
    v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
})"""


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(finished: Path, regdb: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    runs = {"one": [finished], "regdb": [regdb], "two": [finished, regdb]}
    for name, of in runs.items():
        write_report(of, out / f"{name}.html", catalogue=toy_catalogue())
    return {name: out / f"{name}.html" for name in runs}


@pytest.mark.parametrize("name", ["one", "regdb", "two"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_complains_of_nothing_and_fetches_nothing(browser, pages, name, dark, width) -> None:
    browser.open(pages[name], width=width, height=844, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert not [url for url in browser.requests() if not url.startswith(("file:", "data:"))]
    assert len([url for url in browser.requests() if url.startswith("file:")]) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_in_drawings_can_be_read(browser, pages, dark) -> None:
    """A contrast of 4.5 to 1 at least, and letters that are not too small on a phone."""
    browser.open(pages["one"], width=390, height=844, dark=dark)
    contrast = browser.evaluate(
        f"""(() => {{
          const of = {LUMINANCE}, paper = of(getComputedStyle(document.body).backgroundColor);
          return [...document.querySelectorAll('svg.plot text')].map(text => {{
            const ink = of(getComputedStyle(text).fill);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
          }});
        }})()"""
    )
    assert len(contrast) > 100
    assert min(contrast) >= 4.5
    sizes = browser.evaluate(
        "[...document.querySelectorAll('svg.plot text')].map(text => text.getBoundingClientRect())"
        ".map(box => Math.min(box.width, box.height)).filter(size => size > 0)"
    )
    assert min(sizes) >= 6  # of one digit, whose width is half its height


def test_borders_of_right_and_wrong_differ_in_more_than_colour(browser, pages) -> None:
    browser.open(pages["one"])
    style = "getComputedStyle(document.querySelector('{} .picture')).borderTopStyle"
    assert browser.evaluate(style.format(".right")) == "solid"
    assert browser.evaluate(style.format(".wrong")) == "dashed"


def test_thumbnails_are_shown(browser, pages) -> None:
    browser.open(pages["one"])
    images = browser.evaluate(
        "[...document.querySelectorAll('.picture')].map(one => getComputedStyle(one).backgroundImage)"
    )
    assert len(images) > 50
    assert all(image.startswith('url("data:image/jpeg;base64,') for image in images)
