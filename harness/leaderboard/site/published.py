"""The published rows of all tables together: their sources, numbered, and which methods have a record."""

from __future__ import annotations

from dataclasses import dataclass

from harness.leaderboard.board import Board, Row, Table


@dataclass(frozen=True, slots=True)
class PublishedMethod:
    """A method with published figures. ``tables``: where they stand; ``recorded``: those that also hold a run of it."""

    name: str
    paper: str
    venue: str
    year: int | None
    tables: tuple[Table, ...]
    recorded: tuple[Table, ...]


def sources_of(board: Board) -> dict[str, int]:
    """The number, from 1, of each source that a published row names."""
    rows = [row for table in board.tables for row in table.rows if row.kind == "published" and row.source]
    return {source: number for number, source in enumerate(dict.fromkeys(row.source for row in rows), start=1)}


def published_methods(board: Board) -> tuple[PublishedMethod, ...]:
    """Methods with published figures, by name."""
    rows: dict[str, list[tuple[Table, Row]]] = {}
    for table in board.tables:
        for row in table.rows:
            if row.kind == "published":
                rows.setdefault(row.method, []).append((table, row))
    return tuple(_method(name, rows[name]) for name in sorted(rows, key=lambda name: (name.casefold(), name)))


def _method(name: str, rows: list[tuple[Table, Row]]) -> PublishedMethod:
    best = max((row for _, row in rows), key=lambda row: (bool(row.paper), bool(row.venue), row.year is not None))
    tables = tuple({table.identifier: table for table, _ in rows}.values())
    recorded = tuple(table for table in tables if name not in table.without_record)
    return PublishedMethod(name, best.paper, best.venue, best.year, tables, recorded)
