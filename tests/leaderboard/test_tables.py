"""Tables as Markdown, CSV and LaTeX: all that a row says, nothing that leaves its cell, the same bytes every time."""

from __future__ import annotations

import csv
import io
import re

import pytest

from harness.leaderboard.board import Board, Difference, Estimate, Row, RowCost, Table
from harness.leaderboard.tables import comma_separated, index, latex, markdown, table_files

WILD = 'a|b\n<script>$x_1$ & 50% #1 {y} \\input{z} ~^ "q",r'


def row(**changes):
    fields = {
        "identifier": "t-m-12345678",
        "kind": "run",
        "method": "chcr,tsmem",
        "figures": {"rank1": Estimate(38.1, 0.42, 1.8, 36.04, 40.26), "mAP": Estimate(33.3)},
        "verified": "re-scored",
        "parts": (("memory", "tsmem"),),
        "encoder": "small",
        "weights": "pretrained",
        "extra_information": ("camera labels",),
        "seeds": (0, 1, 2),
        "trials": 10,
        "selection": "last",
        "world_size": 1,
        "bn_batch": 96,
        "cost": RowCost(0.01234, "CPU-hours", "cpu", 1361.4, {"training": 40.0}),
        "group": 1,
        "differences": {
            "rank1": Difference(40.0, -1.9, -3.0, -0.8, "PGM: the paper"),
            "mAP": Difference(30.0, 3.3, None, None, ""),
        },
        "marks": ("made with uncommitted code",),
        "settings": "12345678" * 8,
        "records": ("chcr-0.json",),
    }
    return Row(**(fields | changes))


def published(**changes):
    fields = {"identifier": "t-published-pgm", "kind": "published", "method": "PGM", "verified": "published"}
    fields |= {"figures": {"rank1": Estimate(57.27)}, "source": "the paper", "venue": "CVPR", "year": 2023}
    return Row(**(fields | changes))


def table(*rows, **changes):
    fields = {"identifier": "t", "title": "A table", "dataset": "d", "protocol": "p", "about": "About it."}
    return Table(**(fields | {"rows": rows} | changes))


def cells_of(text):
    """The rows of the one Markdown table in ``text``, as mappings from header to cell."""
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


class TestMarkdown:
    def test_says_all_that_a_row_says(self):
        (cells,) = cells_of(markdown(table(row())))
        assert cells == {
            "group": "1",
            "method": "chcr,tsmem",
            "parts": "memory: tsmem",
            "encoder": "small (pretrained)",
            "extra information": "camera labels",
            "rank-1": "38.10 ± 0.42 (1.80)",
            "rank-1, 95 %": "36.04 to 40.26",
            "rank-5": "",
            "rank-10": "",
            "rank-20": "",
            "mAP": "33.30",
            "mAP, 95 %": "",
            "mINP": "",
            "seeds": "0, 1, 2",
            "trials": "10",
            "epoch": "last",
            "world size": "1",
            "BN batch": "96",
            "cost": "0.0123 CPU-hours (cpu)",
            "peak memory": "1361 MiB",
            "verified": "re-scored",
            "rank-1 to published": "-1.90 (-3.00 to -0.80)",
            "mAP to published": "+3.30",
            "remarks": "made with uncommitted code",
            "source": "settings 12345678",
        }

    def test_says_where_a_published_figure_is_from_and_what_is_not_stated(self):
        (cells,) = cells_of(markdown(table(published(marks=("secondary source",)))))
        assert (cells["verified"], cells["epoch"]) == ("published", "not stated")
        assert (cells["source"], cells["remarks"]) == ("CVPR 2023; the paper", "secondary source")
        assert cells["extra information"] == ""

    def test_says_which_rows_have_no_record(self):
        assert "No row has a record yet" in markdown(table(published(), without_record=("PGM",)))
        assert "No record yet of: PGM, A\\|B." in markdown(table(row(), published(), without_record=("PGM", "A|B")))
        assert "record yet" not in markdown(table(row()))

    def test_keeps_names_in_their_cells(self):
        text = markdown(table(row(method=WILD, encoder=WILD, marks=(WILD,)), title=WILD, about=WILD))
        (cells,) = cells_of(text)
        assert cells["method"].startswith(r"a\|b\\n\<script\>\$x_1\$ \& 50% \#1 {y} \\input{z}")
        assert not re.search(r"(?<!\\)<", text)
        assert text.startswith("# a\\|b\\\\n\\<script")


class TestCsv:
    def test_has_a_column_for_each_number(self):
        (line,) = csv.DictReader(io.StringIO(comma_separated(table(row()))))
        found = {
            name: line[name] for name in ("rank1_mean", "rank1_sd_seeds", "rank1_sd_trials", "rank1_low", "rank1_high")
        }
        assert found == {
            "rank1_mean": "38.10",
            "rank1_sd_seeds": "0.42",
            "rank1_sd_trials": "1.80",
            "rank1_low": "36.04",
            "rank1_high": "40.26",
        }
        assert (line["rank5_mean"], line["mAP_sd_seeds"], line["mAP_to_published_low"]) == ("", "", "")
        assert (line["rank1_to_published"], line["hours"], line["hours_unit"]) == ("-1.90", "0.0123", "CPU-hours")
        assert (line["settings"], line["records"], line["seeds"]) == ("12345678" * 8, "chcr-0.json", "0 1 2")

    def test_keeps_names_in_their_cells(self):
        text = comma_separated(table(row(method=WILD), published()))
        assert len(text.splitlines()) == 3
        assert next(csv.DictReader(io.StringIO(text)))["method"] == WILD.replace("\n", "\\n")

    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
    def test_holds_no_formula_of_a_plugins(self, name):
        (line,) = csv.DictReader(io.StringIO(comma_separated(table(row(method=name)))))
        assert line["method"] == f"'{name}"


class TestLatex:
    def test_is_a_tabular_with_a_line_per_row(self):
        text = latex(table(row(), published()))
        assert r"\begin{tabular}" in text
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(lines) == 3
        assert r"38.10 \ensuremath{\pm} 0.42 (1.80)" in lines[1]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {24}

    def test_keeps_names_in_their_cells(self):
        text = latex(table(row(method=WILD)))
        assert r"\input" not in text.replace(r"\textbackslash{}input", "")
        assert r"\$x\_1\$ \& 50\% \#1 \{y\}" in text
        assert {len(re.findall(r"(?<!\\)&", line)) for line in text.splitlines() if line.endswith(r"\\")} == {24}

    def test_a_title_stays_a_comment(self):
        lines = latex(table(row(), title="a\nb")).splitlines()
        assert lines[0] == r"% a\nb, protocol p"
        assert lines[1].startswith(r"\begin")


class TestTheIndex:
    def test_links_every_table_and_says_what_it_lacks(self):
        board = Board(
            (table(row(), published(), without_record=("PGM",)), table(published(), identifier="u", title="U"))
        )
        text = index(board)
        for name in table_files(board):
            assert f"(tables/{name})" in text
        assert "site/index.html" in text
        assert "- A table: No record yet of: PGM." in text
        assert [cells["rows with records"] for cells in cells_of(text)] == ["1", "0"]


def test_equal_boards_are_equal_bytes():
    first, second = (Board((table(row(), published()),)) for _ in range(2))
    assert table_files(first) == table_files(second)
    assert index(first) == index(second)
