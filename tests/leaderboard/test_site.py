"""The page is the same bytes each time, valid, escaped, loads nothing from elsewhere, and says what the board says."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunError
from harness.leaderboard.board import Board, Curve, Table
from harness.leaderboard.site import build_site
from harness.leaderboard.site.axes import linear, logarithmic
from harness.leaderboard.site.costs import cost_plots
from harness.leaderboard.site.curves import line_charts
from harness.leaderboard.site.links import linked
from harness.leaderboard.site.numbers import fixed, interval, signed, three_digits
from tests.leaderboard.site_board import HOSTILE, LONG, estimate, example_board, figures, run_row

VOID = {"meta", "link", "input", "br", "hr", "img"}
RESOURCES = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
HEADINGS = [f"h{level}" for level in range(1, 7)]


class Page(HTMLParser):
    """A page as a list of elements ``(tag, attributes, depth)``; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self._open)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, *tags):
        return [attributes for tag, attributes, _ in self.elements if tag in tags]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "site"
    build_site(example_board(), folder)
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cells(page_text, method):
    """The cells of the first row of a table whose header cell holds ``method``, without markup."""
    row = next(row for row in re.findall(r"<tr\b.*?</tr>", page_text, re.DOTALL) if f">{method}<" in row)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]


def test_building_twice_gives_the_same_bytes(site, tmp_path):
    build_site(example_board(), tmp_path)
    assert contents(tmp_path) == contents(site)
    build_site(example_board(), tmp_path)
    assert contents(tmp_path) == contents(site)


def test_every_run_has_a_page_and_no_published_row_has_one(site):
    runs = {f"{row.identifier}.html" for table in example_board().tables for row in table.run_rows}
    assert {path.name for path in (site / "method").iterdir()} == runs
    assert {path.name for path in site.iterdir()} == {"assets", "compare.html", "index.html", "method"}


def test_pages_of_rows_that_are_gone_are_removed_and_other_files_are_left_alone(tmp_path):
    build_site(example_board(), tmp_path)
    (tmp_path / "method" / "by-hand.html").write_text("<p>Not made here.</p>")
    (tmp_path / "CNAME").write_text("example.org")
    build_site(Board(example_board().tables[:1]), tmp_path)
    left = {path.name for path in (tmp_path / "method").iterdir()}
    assert left == {"sysu--row-0.html", "sysu--row-1.html", "by-hand.html"}
    assert (tmp_path / "CNAME").exists()


@pytest.mark.parametrize("identifier", ["../outside", "a/b", "", "sysu--row-0", ".."])
def test_an_identifier_that_cannot_name_a_page_is_refused_before_anything_is_written(tmp_path, identifier):
    table, *others = example_board().tables
    rows = (*table.rows[:-1], replace(table.rows[-1], identifier=identifier))
    with pytest.raises(RunError, match="cannot name a page"):
        build_site(Board((replace(table, rows=rows), *others)), tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("board", [Board(()), Board((Table("a", "A, b", "A", "a/b/v1", "", ()),))])
def test_a_board_without_rows_makes_a_page(tmp_path, board):
    build_site(board, tmp_path)
    assert Page((tmp_path / "index.html").read_text()).text
    assert "No table has two runs yet." in Page((tmp_path / "compare.html").read_text()).text


def test_identifiers_are_unique_within_a_page(pages):
    for page in pages.values():
        assert len(page.ids) == len(set(page.ids))


def test_links_within_the_page_lead_somewhere(site, pages):
    for name, page in pages.items():
        for address in [attributes["href"] for attributes in page.all("a") if "//" not in attributes["href"]]:
            parts = urlsplit(address)
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            if target.resolve().parent == site.parent / "records":
                assert re.fullmatch(r"(sysu|rendered)-\d+-\d\.json", target.name)
                continue
            assert target.exists(), address
            if parts.fragment and target.name != "compare.html":
                assert unquote(parts.fragment) in pages[target.resolve().relative_to(site).as_posix()].ids, address


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for page in pages.values():
        loaded = [
            attributes.get(name)
            for tag, attributes, _ in page.elements
            for of, name in RESOURCES
            if tag == of and attributes.get(name)
        ]
        assert all(not urlsplit(address).netloc for address in loaded)
    for asset in (site / "assets").iterdir():
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", asset.read_text())


def test_links_to_elsewhere_go_to_sources_over_http_alone(pages):
    outside = {
        attributes["href"] for page in pages.values() for attributes in page.all("a") if ":" in attributes["href"]
    }
    assert outside == {"https://arxiv.org/abs/2609.34294", "https://example.org/a/b.log"}


def test_hostile_names_are_text_everywhere(site, pages):
    for name, page in pages.items():
        raw = (site / name).read_text()
        assert "<script>document" not in raw
        assert [attributes.get("src", "island") for attributes in page.all("script")] == {
            "index.html": ["assets/tables.js"],
            "compare.html": ["assets/tables.js", "assets/compare.js", "island"],
        }.get(name, [])
        assert not any(key.startswith("on") for _, attributes, _ in page.elements for key in attributes)
    assert HOSTILE in pages["index.html"].text
    assert HOSTILE in pages["method/rendered--row-9.html"].text


def test_the_comparing_page_carries_every_row_and_pair_as_json(site):
    text = (site / "compare.html").read_text()
    island = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    tables = {table["identifier"]: table["rows"] for table in island["tables"]}
    assert {name: len(rows) for name, rows in tables.items()} == {"sysu": 15, "regdb": 8, "rendered": 11}
    assert HOSTILE in [row["name"] for row in tables["rendered"]]
    assert tables["rendered"][0]["pairs"]["rendered--row-1"]["rank1"] == {
        "points": "+1.90",
        "interval": "−1.10 to +4.90",
        "apart": False,
    }


def test_without_a_script_the_pairs_stand_in_a_table(pages):
    assert "Choosing two rows needs JavaScript" in pages["compare.html"].text
    rows = [element for element in pages["compare.html"].elements if element[0] == "tr" and "tbody" in element[2]]
    assert len(rows) == 1 + math.comb(11, 2)


def test_a_figure_says_its_deviation_and_its_interval(site):
    row = cells((site / "index.html").read_text(), "chcr,tsmem</a>".removesuffix("</a>"))
    assert row[:2] == ["3", "33.20 ± 1.33 31.20 to 35.20"]


def test_a_deviation_over_trials_is_marked(site):
    row = cells((site / "index.html").read_text(), LONG)
    assert row[1] == "31.30 ± 1.25t"


def test_a_column_that_no_row_fills_is_left_out_and_a_missing_value_is_blank(site):
    text = (site / "index.html").read_text()
    regdb = text[text.index('id="table-regdb"') : text.index('id="dataset-3"')]
    assert not re.search(r"<th[^>]*>(group|seeds|CPU-hours|parts)</th>", regdb)
    assert cells(regdb, "H2H")[:6] == ["87.00", "84.00", "", "", "", ""]


def test_published_methods_without_a_record_are_named(pages):
    text = re.sub(r"\s+", " ", pages["index.html"].text)
    assert "No record yet for 8 of the 8 published methods: ADCA, H2H, OTLA, NGLR, MBCCM, CCLNet, PGM, CHCR." in text
    assert "No record yet for 12 of the 13 published methods" in text


def test_groups_reference_rows_and_published_rows_begin_visibly(site):
    text = (site / "index.html").read_text()
    starts = re.findall(r'<tr class="([^"]*-start)".*?<th scope="row"[^>]*>(?:<a[^>]*>)?([^<]*)<', text, re.DOTALL)
    assert [name for kind, name in starts if "group-start" in kind][:2] == ["hil", "pgm"]
    assert [name for kind, name in starts if "section-start" in kind] == ["ADCA", "supervised"]


def test_a_method_page_says_what_was_run_what_it_cost_and_how_it_differs(pages):
    text = re.sub(r"\s+", " ", pages["method/sysu--row-0.html"].text)
    assert "57.27" in text
    assert "+0.93 −0.40 to +2.26" in text
    assert "Published: repository log at https://example.org/a/b.log" in text
    assert "step2_momentum" in text
    assert "3.50 GPU-hours on NVIDIA H200, peak memory 22000 MiB." in text
    drawings = [attributes for attributes in pages["method/sysu--row-0.html"].all("svg") if "role" in attributes]
    assert [drawing["aria-label"].split(" over")[0] for drawing in drawings] == [
        "Figures on the test images",
        "Pseudo-labels against identities",
        "Pseudo-labels: links of clusters",
        "Losses",
    ]


def test_the_cost_of_each_kind_of_work_is_told_dearest_first(site):
    text = (site / "method" / "rendered--row-0.html").read_text()
    assert cells(text, "clustering") == ["12.2", "17.5"]
    assert text.index(">training<") < text.index(">clustering<") < text.index(">extraction<")


def test_the_same_settings_in_another_table_are_linked(tmp_path):
    table = example_board().tables[0]
    row = table.run_rows[0]
    other = Table("indoor", "SYSU-MM01, indoor", "SYSU-MM01", "x/v1", "", (replace(row, identifier="i"),))
    build_site(Board((table, other)), tmp_path)
    assert '<a href="i.html">SYSU-MM01, indoor</a>' in (tmp_path / "method" / f"{row.identifier}.html").read_text()


def test_pages_are_accessible_in_structure(pages):
    for page in pages.values():
        tags = [tag for tag, _, _ in page.elements if tag in HEADINGS]
        assert tags.count("h1") == 1
        assert all(int(after[1]) <= int(before[1]) + 1 for before, after in itertools.pairwise(tags))
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("main")) == 1
        assert page.all("a")[0]["href"] == "#main"
        assert all("scope" in attributes for attributes in page.all("th"))
        assert len(page.all("table")) == len(page.all("caption"))
        labelled = {attributes["for"] for attributes in page.all("label") if "for" in attributes}
        for tag, attributes, around in page.elements:
            if tag in {"input", "select"}:
                assert attributes["id"] in labelled or "label" in around
            if attributes.get("role") == "img":
                assert attributes["aria-label"]
            if "aria-labelledby" in attributes:
                assert attributes["aria-labelledby"] in page.ids


def test_wide_tables_scroll_in_a_box_that_the_keyboard_reaches(pages):
    for page in pages.values():
        boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
        assert all(box["tabindex"] == "0" and box["role"] == "region" for box in boxes)
        assert all("aria-label" in box or "aria-labelledby" in box for box in boxes)


def colours():
    """The custom properties of the style sheet as ``(light, dark)``."""
    text = (files("harness.leaderboard.site") / "assets" / "site.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(scheme):
    found = colours()[scheme]
    for behind in ("paper", "raised"):
        assert all(contrast(found[text], found[behind]) >= 4.5 for text in ("ink", "muted", "link"))
    marks = [name for name in found if name.startswith("series-")] + ["focus", "strong-rule"]
    assert len(marks) == 8
    assert all(contrast(found[mark], found["paper"]) >= 3 for mark in marks)
    assert colours()[0].keys() == colours()[1].keys()


def test_black_on_white_has_the_greatest_contrast():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_a_plot_needs_two_costs_of_one_unit():
    rows = example_board().tables[2].rows
    assert len(cost_plots(example_board().tables[2])) == 1
    assert cost_plots(example_board().tables[1]) == ()
    one_each = (rows[0], replace(rows[1], cost=replace(rows[1].cost, unit="GPU-hours")))
    assert cost_plots(replace(example_board().tables[2], rows=one_each)) == ()


def test_labels_of_a_crowded_plot_do_not_cover_one_another():
    rows = tuple(run_row("t", f"method-{index}", 40 + index / 10, index) for index in range(12))
    rows = tuple(
        replace(row, cost=replace(row.cost, hours=0.1), figures=figures(row.figures["rank1"].mean)) for row in rows
    )
    table = Table("t", "T", "T", "t/v1", "", rows)
    (plot,) = cost_plots(table)
    places = [(point.anchor, float(point.label_y)) for point in plot.points]
    for (anchor, y), (other_anchor, other_y) in itertools.combinations(places, 2):
        assert anchor != other_anchor or abs(y - other_y) >= 14


def test_markers_tell_the_best_group_others_and_references():
    (plot,) = cost_plots(example_board().tables[2])
    marker = {point.name: point.marker for point in plot.points}
    assert (marker["chcr"], marker["pgm"], marker["supervised"]) == ("best", "other", "reference")
    assert plot.markers == ("best", "other", "reference")


def test_curves_of_one_kind_share_a_chart_and_every_chart_the_epochs():
    names = (
        "rank-1",
        "labels ARI joint",
        "labels NMI joint",
        "labels cover a>b",
        "labels outliers joint",
        "loss x",
        "y",
    )
    charts = line_charts([Curve(name, (2, 4), (0.25, 0.5)) for name in names] + [Curve("loss z", (1, 9), (1.0, 1.0))])
    assert [[line.name for line in chart.lines] for chart in charts] == [
        ["rank-1"],
        ["ARI joint", "NMI joint"],
        ["cover a>b"],
        ["outliers joint"],
        ["x", "y", "z"],
    ]
    assert {(chart.x.low, chart.x.high) for chart in charts} == {(1, 9)}
    assert charts[-1].epochs == (1, 2, 4, 9)
    assert [charts[-1].value(charts[-1].curves[0], epoch) for epoch in (2, 9)] == ["0.250", ""]


def test_a_curve_of_one_epoch_or_of_equal_values_is_drawn():
    (chart,) = line_charts([Curve("loss a", (3,), (0.0,)), Curve("loss b", (), ())])
    assert re.fullmatch(r"[\d.]+,[\d.]+", chart.lines[0].points)
    assert len(chart.lines) == 1


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_linear_axis_holds_its_values_between_even_round_ticks(low, extent):
    axis = linear(low, low + extent, start=0, end=100)
    assert -0.001 <= axis.place(low) <= axis.place(low + extent) <= 100.001
    assert 2 <= len(axis.ticks) <= 12
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks)


@given(st.floats(1e-5, 1e5), st.floats(1, 1e5))
def test_a_logarithmic_axis_has_ticks_in_order_and_room_beside_its_values(low, factor):
    axis = logarithmic(low, low * factor, start=0, end=100)
    assert 0 < axis.place(low) <= axis.place(low * factor) < 100
    places = [float(tick.at) for tick in axis.ticks]
    assert places == sorted(places)
    assert 3 <= len(places) <= 12
    assert len({tick.label for tick in axis.ticks}) == len(places)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (fixed(-0.001), "0.00"),
        (fixed(-1.5), "−1.50"),
        (signed(0.004), "0.00"),
        (signed(2), "+2.00"),
        (signed(-2), "−2.00"),
        (interval(1, None), ""),
        (interval(-1, 2.5, with_sign=True), "−1.00 to +2.50"),
        (three_digits(0), "0"),
        (three_digits(0.012345), "0.0123"),
        (three_digits(12345), "12345"),
        (three_digits(99.96), "100"),
        (three_digits(-1.5), "−1.50"),
    ],
)
def test_numbers_are_written_with_fixed_digits(written, expected):
    assert written == expected


def test_addresses_become_links_and_nothing_else_does():
    assert linked("see https://a.org/b_c.") == 'see <a href="https://a.org/b_c">https://a.org/b_c</a>.'
    assert linked("arXiv:2402.19026v2;") == '<a href="https://arxiv.org/abs/2402.19026v2">arXiv:2402.19026v2</a>;'
    assert linked('javascript:x <a href="https://a.org/\'onload=x">') == (
        'javascript:x &lt;a href=&#34;<a href="https://a.org/">https://a.org/</a>&#39;onload=x&#34;&gt;'
    )


def test_an_estimate_without_spread_or_interval_is_the_mean_alone(tmp_path):
    row = run_row(
        "t", "alone", 40.0, 0, figures={"rank1": estimate(40.0, sd_seeds=None)}, cost=None, curves=(), parts=()
    )
    build_site(Board((Table("t", "T", "T", "t/v1", "", (row,)),)), tmp_path)
    assert cells((tmp_path / "index.html").read_text(), "alone")[1] == "40.00"
    assert "No parts" in (tmp_path / "method" / "t--row-0.html").read_text()
