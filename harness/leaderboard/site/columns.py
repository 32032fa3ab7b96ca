"""The columns of a table on the page and what stands in each cell; a column that no row fills is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from harness.evaluation.figures import FigureName, figure_header
from harness.leaderboard.board import VERIFIED, Estimate, Row, Table
from harness.leaderboard.site.numbers import fixed, interval, signed, three_digits

FIGURE_ORDER: tuple[FigureName, ...] = ("rank1", "mAP", "mINP", "rank5", "rank10", "rank20")
"""What is compared first stands first: a phone shows two or three columns at a time."""

Sorting = Literal["most", "least", "text"]


@dataclass(frozen=True, slots=True)
class Cell:
    """``text`` is what stands there, ``spread`` what follows ± and ``spread_over`` what it is a deviation over;
    ``interval`` shows on demand. ``order`` sorts (None: last)."""

    text: str = ""
    order: float | str | None = None
    spread: str = ""
    spread_over: str = ""
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """``key``: the CSS class of its cells. ``sorting``: what the first click on the header puts on top."""

    key: str
    header: str
    sorting: Sorting
    cell: Callable[[Row], Cell]


def columns_of(table: Table) -> tuple[Column, ...]:
    """The columns that at least one row of ``table`` fills; the method's own stands before them."""
    return tuple(column for column in _COLUMNS if any(column.cell(row).text for row in table.rows))


def figure_cell(estimate: Estimate | None) -> Cell:
    """A figure in percent. The deviation is over the seeds, or over the trials where there is one seed."""
    if estimate is None:
        return Cell()
    over_seeds = estimate.sd_seeds is not None
    spread = estimate.sd_seeds if over_seeds else estimate.sd_trials
    return Cell(
        text=fixed(estimate.mean),
        order=round(estimate.mean, 6),
        spread="" if spread is None else fixed(spread),
        spread_over="" if spread is None else "seeds" if over_seeds else "trials",
        interval=interval(estimate.low, estimate.high),
    )


def _figure(name: FigureName) -> Column:
    return Column("figure", figure_header(name), "most", lambda row: figure_cell(row.figures.get(name)))


def _group(row: Row) -> Cell:
    return Cell() if row.group is None else Cell(str(row.group), row.group)


def _difference(row: Row) -> Cell:
    found = row.differences.get("rank1")
    if found is None:
        return Cell()
    return Cell(signed(found.points), round(found.points, 6), interval=interval(found.low, found.high, with_sign=True))


def _verified(row: Row) -> Cell:
    return Cell(row.verified, VERIFIED.index(row.verified))


def _seeds(row: Row) -> Cell:
    return Cell(str(len(row.seeds)), len(row.seeds)) if row.seeds else Cell()


def _trials(row: Row) -> Cell:
    return Cell(str(row.trials), row.trials) if row.trials else Cell()


def _selection(row: Row) -> Cell:
    return _text(row.selection)


def _extra(row: Row) -> Cell:
    if row.kind == "run" and not row.extra_information:
        return Cell("none", "none")
    return _text(", ".join(row.extra_information))


def _encoder(row: Row) -> Cell:
    return _text(", ".join(filter(None, (row.encoder, row.weights))))


def _parts(row: Row) -> Cell:
    return _text(", ".join(dict.fromkeys(name for _, name in row.parts)))


def _hours(unit: str) -> Column:
    def cell(row: Row) -> Cell:
        if row.cost is None or row.cost.unit != unit:
            return Cell()
        return Cell(three_digits(row.cost.hours), row.cost.hours)

    return Column("number", unit, "least", cell)


def _memory(row: Row) -> Cell:
    if row.cost is None or row.cost.peak_memory_mib is None:
        return Cell()
    return Cell(three_digits(row.cost.peak_memory_mib / 1024), row.cost.peak_memory_mib)


def _count(value: int | None) -> Cell:
    return Cell() if value is None else Cell(str(value), value)


def _text(text: str) -> Cell:
    return Cell(text, text.casefold()) if text else Cell()


def _source(row: Row) -> Cell:
    if row.records:
        count = len(row.records)
        return Cell("1 record" if count == 1 else f"{count} records", f"0 {count:04d}")
    return _text(row.source)


_COLUMNS: tuple[Column, ...] = (
    Column("number", "group", "least", _group),
    *map(_figure, FIGURE_ORDER),
    Column("figure", "rank-1 vs published", "most", _difference),
    Column("verified", "verified", "most", _verified),
    Column("number", "seeds", "most", _seeds),
    Column("number", "trials", "most", _trials),
    Column("text", "selection", "text", _selection),
    Column("long", "extra information", "text", _extra),
    Column("text", "encoder", "text", _encoder),
    Column("parts", "parts", "text", _parts),
    _hours("CPU-hours"),
    _hours("GPU-hours"),
    Column("number", "memory, GiB", "least", _memory),
    Column("number", "processes", "least", lambda row: _count(row.world_size)),
    Column("number", "BN batch", "least", lambda row: _count(row.bn_batch)),
    Column("source", "source", "text", _source),
)
