"""Run rows of a table, ranked: intervals over queries, paired differences and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.errors import RunError
from harness.evaluation.figures import FigureName
from harness.leaderboard.board import Estimate, Row
from harness.leaderboard.record import Record
from harness.leaderboard.statistics import (
    QueryFigure,
    Run,
    by_query,
    contains_zero,
    groups,
    intervals,
    paired_differences,
)

_FIGURES: tuple[tuple[QueryFigure, FigureName], ...] = (("rank1", "rank1"), ("AP", "mAP"))


def row_order(row: Row) -> tuple[Any, ...]:
    """Methods before reference rows, best rank-1 first."""
    return row.reference is not None, -row.figures["rank1"].mean, row.method, row.settings


def ranked(rows: Sequence[Row], runs: Mapping[str, Mapping[Run, Record]], *, protocol: str) -> list[Row]:
    """``rows`` in order, with what single queries tell.

    Args:
        rows: the run rows of one table.
        runs: the records of each, by the row's settings digest.
        protocol: that of the table. Single queries are recorded under the primary protocol of a dataset alone, so that
            rows of others stay without intervals, pairs and groups.

    Raises:
        RunError: two runs of one trial had other test queries.
    """
    ordered = sorted(rows, key=row_order)
    records = [record for of_row in runs.values() for record in of_row.values()]
    if not records or any(record.primary_protocol != protocol for record in records):
        return ordered
    queries = _queries(records)
    pairs: list[dict[str, dict[str, Estimate]]] = [{} for _ in ordered]
    for query_figure, figure in _FIGURES:
        values_RQ = np.stack([by_query(runs[row.settings], query_figure, queries=queries) for row in ordered])
        ends_R = intervals(values_RQ)
        ordered = [_with_interval(row, figure, ends) for row, ends in zip(ordered, ends_R, strict=True)]
        for (one, other), difference in paired_differences(values_RQ).items():
            pairs[one].setdefault(ordered[other].identifier, {})[figure] = difference
    return _grouped([replace(row, pairs=found) for row, found in zip(ordered, pairs, strict=True)])


def _queries(records: Iterable[Record]) -> dict[int | None, int]:
    """The number of queries of each trial."""
    found: dict[int | None, int] = {}
    for record in records:
        count = record.protocols[record.primary_protocol].queries
        if found.setdefault(record.dataset.trial, count) != count:
            raise RunError(
                f"Run {record.name!r} was scored with {count} queries, but another run on the same images with "
                f"{found[record.dataset.trial]}: they cannot share a table."
            )
    return dict(sorted(found.items(), key=lambda item: item[0] or 0))


def _with_interval(row: Row, figure: FigureName, ends: tuple[float, float] | None) -> Row:
    if ends is None:
        return row
    return replace(row, figures=row.figures | {figure: replace(row.figures[figure], low=ends[0], high=ends[1])})


def _grouped(ordered: Sequence[Row]) -> list[Row]:
    """Rows of methods get their group; reference rows have none."""
    methods = [row for row in ordered if row.reference is None]

    def alike(first: int, other: int) -> bool:
        difference = methods[first].pairs.get(methods[other].identifier, {}).get("rank1")
        return difference is not None and contains_zero(difference)

    group_of = dict(zip((row.identifier for row in methods), groups(len(methods), alike), strict=True))
    return [replace(row, group=group_of.get(row.identifier)) for row in ordered]
