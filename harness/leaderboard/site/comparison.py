"""Pairs of a table's runs, for the table that needs no script, and what the comparing script reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.evaluation.figures import figure_header
from harness.leaderboard.board import Board, Estimate, Row, Table
from harness.leaderboard.site.columns import FIGURE_ORDER, columns_of, figure_cell
from harness.leaderboard.site.numbers import interval, signed


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired difference as text, in points; ``apart``: its interval leaves zero out (None without an interval)."""

    points: str = ""
    interval: str = ""
    order: float | None = None
    apart: bool | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs of one table, the first less the second."""

    first: Row
    second: Row
    rank1: Paired
    mAP: Paired


def paired(estimate: Estimate | None) -> Paired:
    """A difference of two rows as the page writes it."""
    if estimate is None:
        return Paired()
    apart = None if estimate.low is None or estimate.high is None else not estimate.low <= 0 <= estimate.high
    text = interval(estimate.low, estimate.high, with_sign=True)
    return Paired(signed(estimate.mean), text, round(estimate.mean, 6), apart)


def pairs_of(table: Table) -> tuple[Pair, ...]:
    """Every two runs of ``table`` that were compared query by query, in the order of its rows."""
    return tuple(
        Pair(first, second, paired(found.get("rank1")), paired(found.get("mAP")))
        for first, second in combinations(table.run_rows, 2)
        if (found := first.pairs.get(second.identifier))
    )


def row_names(table: Table) -> dict[str, str]:
    """What to call each row, by identifier: its method, and its settings where that alone would be ambiguous."""
    counts = Counter(row.method for row in table.rows)
    return {
        row.identifier: f"{row.method} [{row.settings[:8]}]" if counts[row.method] > 1 and row.settings else row.method
        for row in table.rows
    }


def island(board: Board) -> dict[str, Any]:
    """The tables as plain values, for the script of the comparing page."""
    return {
        "figures": [[name, figure_header(name)] for name in FIGURE_ORDER],
        "tables": [
            {"identifier": table.identifier, "title": table.title, "rows": _rows(table)}
            for table in board.tables
            if len(table.rows) >= 2
        ],
    }


def _rows(table: Table) -> list[dict[str, Any]]:
    names = row_names(table)
    return [
        {
            "identifier": row.identifier,
            "name": names[row.identifier],
            "kind": row.kind,
            "facts": _facts(table, row),
            "figures": {name: _figure(row.figures.get(name)) for name in FIGURE_ORDER if name in row.figures},
            "pairs": {
                other: {figure: _paired_values(found) for figure, found in figures.items()}
                for other, figures in row.pairs.items()
            },
        }
        for row in table.rows
    ]


def _facts(table: Table, row: Row) -> list[list[str]]:
    """Everything the table says of the row apart from figures, as ``[header, text]``."""
    cells = [(column.header, column.cell(row)) for column in columns_of(table) if column.key != "figure"]
    return [[header, cell.text] for header, cell in cells]


def _figure(estimate: Estimate | None) -> dict[str, Any]:
    cell = figure_cell(estimate)
    return {
        "mean": cell.order,
        "text": cell.text,
        "spread": cell.spread,
        "over": cell.spread_over,
        "interval": cell.interval,
    }


def _paired_values(estimate: Estimate) -> dict[str, Any]:
    found = paired(estimate)
    return {"points": found.points, "interval": found.interval, "apart": found.apart}
