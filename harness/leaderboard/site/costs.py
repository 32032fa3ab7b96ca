"""Accuracy against cost as a scatter plot: one for each unit of cost, because CPU-hours are not GPU-hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.leaderboard.board import Estimate, Row, Table
from harness.leaderboard.site.axes import Axis, Plot, linear, logarithmic
from harness.leaderboard.site.numbers import coordinate, fixed, three_digits

_LETTER = 6.6
_LABEL_HEIGHT = 14.0
_LONGEST = 30
_LEFT, _TOP, _WIDTH, _HEIGHT, _RIGHT, _BELOW = 58.0, 12.0, 640.0, 380.0, 22.0, 46.0

Marker = Literal["best", "other", "reference"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Point:
    """A row at its cost and rank-1; ``low_y`` and ``high_y`` end its interval. A label that was moved away is led."""

    name: str
    label: str
    identifier: str
    marker: Marker
    x: str
    y: str
    low_y: str
    high_y: str
    label_x: str
    label_y: str
    anchor: str
    led: bool


@dataclass(frozen=True, slots=True)
class CostPlot(Plot):
    """Rank-1 (linear) against hours (logarithmic) of the runs of one table."""

    points: tuple[Point, ...]

    @property
    def markers(self) -> tuple[Marker, ...]:
        """The kinds of marker that the legend explains."""
        kinds: tuple[Marker, ...] = ("best", "other", "reference")
        return tuple(kind for kind in kinds if any(point.marker == kind for point in self.points))


def cost_plots(table: Table) -> tuple[CostPlot, ...]:
    """A plot for each unit in which at least two rows of ``table`` have a cost above zero and a rank-1."""
    plots = []
    for unit in ("CPU-hours", "GPU-hours"):
        rows = [row for row in table.run_rows if _hours(row, unit) > 0 and "rank1" in row.figures]
        plots += [_plot(table, unit, rows)] if len(rows) >= 2 else []
    return tuple(plots)


def _hours(row: Row, unit: str) -> float:
    return row.cost.hours if row.cost is not None and row.cost.unit == unit else 0.0


def _plot(table: Table, unit: str, rows: Sequence[Row]) -> CostPlot:
    hours = [_hours(row, unit) for row in rows]
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    x = logarithmic(min(hours), max(hours), start=_LEFT, end=right)
    y = linear(*_extent(rows), start=bottom, end=_TOP)
    title = f"{table.title}: rank-1 against cost"
    return CostPlot(
        title=title,
        unit=unit,
        description=f"{title}, in {unit}. " + _listed(rows, unit),
        width=coordinate(right + _RIGHT),
        height=coordinate(bottom + _BELOW),
        left=coordinate(_LEFT),
        right=coordinate(right),
        top=coordinate(_TOP),
        bottom=coordinate(bottom),
        x=x,
        y=y,
        points=_points(rows, unit, x, y),
    )


def _listed(rows: Iterable[Row], unit: str) -> str:
    return "; ".join(
        f"{row.method}: {fixed(row.figures['rank1'].mean)} % at {three_digits(_hours(row, unit))}" for row in rows
    )


def _extent(rows: Iterable[Row]) -> tuple[float, float]:
    estimates = [row.figures["rank1"] for row in rows]
    lows = [found.mean if found.low is None else found.low for found in estimates]
    highs = [found.mean if found.high is None else found.high for found in estimates]
    return min(lows), max(highs)


def _points(rows: Sequence[Row], unit: str, x: Axis, y: Axis) -> tuple[Point, ...]:
    places = [(x.place(_hours(row, unit)), y.place(row.figures["rank1"].mean)) for row in rows]
    bars = [_bar(row.figures["rank1"], at, y) for row, (at, _) in zip(rows, places, strict=True)]
    taken: list[Box] = [(at - 6, up - 6, at + 6, up + 6) for at, up in places] + bars
    points = []
    for row, (at, up), bar in zip(rows, places, bars, strict=True):
        label = row.method if len(row.method) <= _LONGEST else row.method[: _LONGEST - 1] + "…"
        box, anchor, led = _label_place(at, up, width=len(label) * _LETTER, taken=taken)
        taken.append(box)
        points.append(
            Point(
                name=row.method,
                label=label,
                identifier=row.identifier,
                marker="reference" if row.reference else "best" if row.group == 1 else "other",
                x=coordinate(at),
                y=coordinate(up),
                low_y=coordinate(bar[3]),
                high_y=coordinate(bar[1]),
                label_x=coordinate(box[0] if anchor == "start" else box[2]),
                label_y=coordinate((box[1] + box[3]) / 2),
                anchor=anchor,
                led=led,
            )
        )
    return tuple(points)


def _bar(estimate: Estimate, at: float, y: Axis) -> Box:
    low, high = (estimate.mean if end is None else end for end in (estimate.low, estimate.high))
    return at - 2, y.place(high), at + 2, y.place(low)


def _label_place(at: float, up: float, *, width: float, taken: Sequence[Box]) -> tuple[Box, str, bool]:
    """The nearest free place for a label, right or left of its point and then above and below; the nearest one within
    the frame if none is free."""
    shifts = sorted((_LABEL_HEIGHT * step / 2 for step in range(-16, 17)), key=abs)
    candidates = [
        (_label_box(at, up + shift, width=width, side=side), "start" if side > 0 else "end", abs(shift) > _LABEL_HEIGHT)
        for shift in shifts
        for side in (1, -1)
    ]
    inside = [found for found in candidates if _within(found[0])] or candidates
    return next((found for found in inside if not any(_overlap(found[0], other) for other in taken)), inside[0])


def _label_box(at: float, middle: float, *, width: float, side: int) -> Box:
    near, far = at + side * 10, at + side * (10 + width)
    return min(near, far), middle - _LABEL_HEIGHT / 2, max(near, far), middle + _LABEL_HEIGHT / 2


def _within(box: Box) -> bool:
    return box[0] >= _LEFT + 2 and box[2] <= _LEFT + _WIDTH + _RIGHT and box[1] >= _TOP and box[3] <= _TOP + _HEIGHT


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
