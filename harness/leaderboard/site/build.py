"""Writes the page: one index, one page for each run row, one that compares two rows, a style sheet and two scripts.

The bytes depend on the board alone. Nothing is loaded from elsewhere; links to sources are the only addresses outside.
"""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.errors import RunError
from harness.evaluation.figures import FIGURE_NAMES, figure_header
from harness.files import replace_text
from harness.leaderboard.board import VERIFIED, Board, Row, Table
from harness.leaderboard.site.columns import columns_of, figure_cell
from harness.leaderboard.site.comparison import island, paired, pairs_of, row_names
from harness.leaderboard.site.costs import cost_plots
from harness.leaderboard.site.curves import line_charts
from harness.leaderboard.site.links import linked
from harness.leaderboard.site.numbers import fixed, interval, signed, three_digits
from harness.leaderboard.site.published import published_methods, sources_of

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ASSETS = ("site.css", "tables.js", "compare.js")
_MADE_HERE = '<meta name="generator" content="vireid-harness leaderboard">'
"""In the head of every page, so that a later build knows which left-over pages are its own."""


def build_site(board: Board, folder: Path) -> None:
    """Write the page of ``board`` to ``folder``: ``index.html`` opens it.

    Method pages of an earlier build whose rows are gone are removed; files of other origin are left alone. Pages link
    to records as ``../records/NAME`` beside ``folder``.

    Raises:
        RunError: two rows share an identifier, or one is no plain file name.
    """
    _require_file_names(board)
    pages = _pages(board)
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        replace_text(folder / name, text)
    for left_over in sorted(set(folder.glob("method/*.html")) - {folder / name for name in pages}):
        if _MADE_HERE in left_over.read_text(encoding="utf-8", errors="replace"):
            left_over.unlink()


def _pages(board: Board) -> dict[str, str]:
    """The text of every file of the page, by path."""
    environment = _environment()
    environment.globals.update(sources=sources_of(board))
    pages = {
        "index.html": environment.get_template("index.html").render(
            root="", datasets=_datasets(board), published=published_methods(board)
        ),
        "compare.html": environment.get_template("compare.html").render(root="", board=board, island=island(board)),
    }
    method = environment.get_template("method.html")
    for table in board.tables:
        for row in table.run_rows:
            pages[f"method/{row.identifier}.html"] = method.render(root="../", **_method_page(board, table, row))
    assets = files("harness.leaderboard.site") / "assets"
    return pages | {f"assets/{name}": (assets / name).read_text(encoding="utf-8") for name in _ASSETS}


def _method_page(board: Board, table: Table, row: Row) -> dict[str, Any]:
    others = [other for other in table.run_rows if other.identifier in row.pairs]
    return {
        "table": table,
        "row": row,
        "charts": line_charts(row.curves),
        "pairs": [
            (other, {name: paired(found) for name, found in row.pairs[other.identifier].items()}) for other in others
        ],
        "elsewhere": _elsewhere(board, table, row),
        "names": row_names(table),
        "columns": [column for column in columns_of(table) if column.key != "figure" and column.cell(row).text],
    }


def _elsewhere(board: Board, table: Table, row: Row) -> list[tuple[Table, Row]]:
    """The rows of the same method and settings in other tables, with their tables."""
    return [
        (other_table, other)
        for other_table in board.tables
        for other in other_table.run_rows
        if other_table is not table and row.settings and (other.method, other.settings) == (row.method, row.settings)
    ]


def page_environment(package: str) -> Environment:
    """Templates of ``package``, as every page of the harness is made of them: escaped, and nothing undefined passes."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _environment() -> Environment:
    environment = page_environment("harness.leaderboard.site")
    environment.filters.update(
        linked=linked, fixed=fixed, signed=signed, three_digits=three_digits, path=lambda name: quote(name, safe="")
    )
    environment.globals.update(
        columns_of=columns_of,
        counted=_counted,
        cost_plots=cost_plots,
        figure_cell=figure_cell,
        figure_header=figure_header,
        figure_names=FIGURE_NAMES,
        interval=interval,
        levels=VERIFIED,
        made_here=_MADE_HERE,
        pairs_of=pairs_of,
        published_count=_published_count,
        record_file=lambda name: quote(name if name.endswith(".json") else f"{name}.json", safe=""),
        row_names=row_names,
    )
    return environment


def _datasets(board: Board) -> list[tuple[str, list[Table]]]:
    """The tables by dataset, in the board's order. All versions of a dataset stand under its name."""
    return [(name, list(tables)) for name, tables in groupby(board.tables, key=_dataset_name)]


def _dataset_name(table: Table) -> str:
    """What a title begins with: ``Rendered`` of ``Rendered (small, seed 0), all-search``."""
    return table.title.split(", ")[0].split(" (")[0]


def _published_count(table: Table) -> int:
    return len({row.method for row in table.rows if row.kind == "published"})


def _counted(table: Table) -> str:
    """How many rows of each kind ``table`` has, in words."""
    runs, others = len(table.run_rows), len(table.rows) - len(table.run_rows)
    return f"{runs or 'no'} run{'' if runs == 1 else 's'}, {others or 'no'} published row{'' if others == 1 else 's'}"


def _require_file_names(board: Board) -> None:
    seen: set[str] = set()
    for identifier in (row.identifier for table in board.tables for row in table.rows):
        if not _FILE_NAME.fullmatch(identifier) or identifier in seen:
            raise RunError(
                f"The row identifier {identifier!r} cannot name a page: each must be a plain file name that no other "
                "row has. Rows of a board are made by harness.leaderboard.rows."
            )
        seen.add(identifier)
