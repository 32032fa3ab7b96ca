"""The page in a headless Chromium: sorted, filtered and compared, at desktop and phone size, light and dark."""

from __future__ import annotations

import pytest

from harness.leaderboard.site import build_site
from tests.leaderboard.chromium import VARIABLE, Browser, find_chromium
from tests.leaderboard.site_board import HOSTILE, example_board

CHROMIUM = find_chromium()
PAGES = ("index.html", "compare.html", "method/rendered--row-0.html", "method/sysu--row-0.html")
RENDERED = "[aria-labelledby=table-rendered] table"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium on the PATH; install one or name it with {VARIABLE}"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "site"
    build_site(example_board(), folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as running:
        yield running


def header(name):
    """A selector for the header of a column of the rendered table, by its place."""
    place = {"method": 1, "group": 2, "rank-1": 3, "mAP": 4, "CPU-hours": 16}[name]
    return f"{RENDERED} thead th:nth-child({place})"


def methods(browser, table=RENDERED):
    """The first word of each visible row's method."""
    rows = f"[...document.querySelectorAll('{table} tbody tr')].filter((row) => row.getClientRects().length)"
    return browser.evaluate(f"{rows}.map((row) => row.cells[0].firstChild.textContent.trim().split(/[ ,]/)[0])")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_its_window_and_loads_its_own_files_alone(browser, site, page, width, height, dark):
    browser.open(site / page, width=width, height=height, dark=dark)
    assert browser.complaints() == []
    assert all(address.startswith((site.as_uri(), "data:")) for address in browser.requests())
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(22, 22, 22)" if dark else "rgb(255, 255, 255)")


def test_on_a_phone_a_table_scrolls_and_its_first_column_stays(browser, site):
    browser.open(site / "index.html", width=390, height=844)
    box = "document.querySelector('[aria-labelledby=table-rendered].scroll')"
    cell = f"{box}.querySelector('tbody th').getBoundingClientRect().x"
    before = browser.evaluate(cell)
    assert browser.evaluate(f"{box}.scrollLeft = 300") == 300
    assert browser.evaluate(f"{box}.scrollLeft") == 300
    assert browser.evaluate(cell) == before


def test_a_click_sorts_the_other_click_turns_and_the_third_restores(browser, site):
    browser.open(site / "index.html")
    board = methods(browser)
    button, sort = f"{header('rank-1')} button", f"document.querySelector('{header('rank-1')}').ariaSort"
    browser.click(button)
    assert browser.evaluate(sort) == "descending"
    assert methods(browser)[:2] == ["supervised", "chcr"]
    browser.click(button)
    assert browser.evaluate(sort) == "ascending"
    assert methods(browser)[-1] == "supervised"
    browser.click(button)
    assert browser.evaluate(sort) == "none"
    assert methods(browser) == board


def test_text_sorts_by_its_words_and_one_column_at_a_time(browser, site):
    browser.open(site / "index.html")
    browser.click(f"{header('rank-1')} button")
    browser.click(f"{header('method')} button")
    names = methods(browser)
    plain = [name for name in names if not name.startswith("<")]
    assert plain == sorted(plain)
    sorts = f"[...document.querySelectorAll('{RENDERED} thead th')].map((cell) => cell.ariaSort)"
    assert sorted(browser.evaluate(sorts))[:2] == ["ascending", "none"]
    assert browser.evaluate(sorts).count("none") == len(browser.evaluate(sorts)) - 1


def test_cells_without_a_value_stay_last_whichever_way(browser, site):
    browser.open(site / "index.html")
    name = f"document.querySelector('{header('CPU-hours')}').textContent"
    assert browser.evaluate(name) == "CPU-hours"
    for _ in range(2):
        browser.click(f"{header('CPU-hours')} button")
        assert methods(browser)[-1] == "a-method-with-a-very-long-name"


def test_the_keyboard_sorts_too_and_shows_where_it_is(browser, site):
    browser.open(site / "index.html")
    browser.evaluate(f"document.querySelector('{header('mAP')} button').focus({{focusVisible: true}})")
    assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press_enter()
    assert browser.evaluate(f"document.querySelector('{header('mAP')}').ariaSort") == "descending"


def test_typing_filters_by_method_part_and_encoder(browser, site):
    browser.open(site / "index.html")
    browser.type("#filter-text", "TSMEM dmic")
    assert methods(browser) == ["dmic"]
    assert browser.evaluate("document.querySelector('.status').textContent") == "1 of 34 rows"
    browser.click(".reset button")
    browser.evaluate("new Promise((done) => setTimeout(done))")
    assert len(methods(browser)) == 11
    assert browser.evaluate("document.querySelector('.status').textContent") == "34 rows"


def test_rows_filter_by_kind_verification_and_extra_information(browser, site):
    browser.open(site / "index.html")
    browser.choose("#filter-kind", "published")
    assert methods(browser) == []
    assert browser.evaluate(f"document.querySelector('{RENDERED}').nextElementSibling.innerText") == (
        "No row passes the filter."
    )
    assert len(methods(browser, "[aria-labelledby=table-sysu] table")) == 13
    browser.choose("#filter-kind", "run")
    browser.choose("#filter-verified", "3")
    assert methods(browser) == ["dmic", "baseline", "a-method-with-a-very-long-name"]
    browser.choose("#filter-extra", "has camera labels")
    assert methods(browser) == ["baseline"]


def test_intervals_show_on_demand(browser, site):
    browser.open(site / "index.html")
    shown = "document.querySelectorAll('.interval')[0].getClientRects().length"
    assert browser.evaluate(shown) == 0
    browser.click("#show-intervals")
    assert browser.evaluate(shown) == 1


def test_two_runs_are_compared_with_their_paired_differences(browser, site):
    browser.open(site / "compare.html")
    browser.choose("#choose-table", "rendered")
    browser.choose("#choose-second", "rendered--row-4")
    said = browser.evaluate("document.getElementById('comparison').innerText")
    assert (
        "The rank-1 of chcr less that of pclhd is +7.60 points; its interval, +4.60 to +10.60, leaves zero out" in said
    )
    lines = browser.evaluate("[...document.querySelectorAll('.sides')[0].tBodies[0].rows].map((row) => row.innerText)")
    assert lines[0].split("\t") == ["rank-1", "46.50 ± 1.33", "38.90 ± 1.33", "+7.60 +4.60 to +10.60"]
    assert browser.complaints() == []


def test_a_comparison_with_a_published_row_has_no_interval(browser, site):
    browser.open(site / "compare.html", fragment="#sysu/sysu--row-0/sysu--published-0")
    said = browser.evaluate("document.getElementById('comparison').innerText")
    assert "were not compared query by query" in said
    assert "−6.30" in said


def test_a_comparison_can_be_linked_to_and_is_kept_in_the_address(browser, site):
    browser.open(site / "compare.html", fragment="#rendered/rendered--row-2")
    chosen = "[...document.querySelectorAll('.chooser select')].map((box) => box.value)"
    assert browser.evaluate(chosen) == ["rendered", "rendered--row-2", "rendered--row-0"]
    browser.choose("#choose-first", "rendered--row-0")
    assert "Choose two different rows." in browser.evaluate("document.getElementById('comparison').innerText")
    assert browser.evaluate("location.hash") == "#rendered/rendered--row-0/rendered--row-0"


def test_names_are_shown_and_never_run(browser, site):
    browser.open(site / "compare.html", fragment="#rendered/rendered--row-9/rendered--row-0")
    assert browser.evaluate("document.querySelector('#comparison h2').textContent") == f"{HOSTILE} and chcr"
    assert browser.evaluate("document.title") == "Compare two methods: leaderboards"
    browser.open(site / "index.html")
    assert browser.evaluate("document.title").startswith("Leaderboards:")


def test_without_javascript_the_tables_and_pairs_stand_whole(browser, site):
    browser.open(site / "index.html", scripts=False)
    assert browser.count_shown("tbody tr") == 34 + 13
    assert browser.count_shown("form.filters") == 0
    browser.open(site / "compare.html", scripts=False)
    assert browser.count_shown("noscript p") == 1
    assert browser.count_shown("form.chooser") == 0
    assert browser.count_shown("tbody tr") == 56
