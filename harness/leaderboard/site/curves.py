"""Curves over epochs as line charts: places of lines, labels and ticks, in drawing units. A template draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.leaderboard.board import Curve
from harness.leaderboard.site.axes import Axis, Plot, linear
from harness.leaderboard.site.numbers import coordinate, three_digits

# Drawing units, which are pixels: it fits a phone
_LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT, _BELOW, _BESIDE = 54.0, 12.0, 288.0, 190.0, 44.0, 10.0
_SPARSE = 8  # points
STYLES = 6
"""Colours and dash patterns before they repeat."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. ``points``: as an SVG polyline takes them; ``dots``: all points of a sparse curve, else its end;
    ``last``: its value there."""

    name: str
    style: int
    points: str
    dots: tuple[tuple[str, str], ...]
    last: str


@dataclass(frozen=True, slots=True)
class LineChart(Plot):
    """Curves that share a unit."""

    lines: tuple[Line, ...]
    curves: tuple[Curve, ...]

    @property
    def epochs(self) -> tuple[int, ...]:
        """Every epoch that one of the curves has, for the table beside the drawing."""
        return tuple(sorted({epoch for curve in self.curves for epoch in curve.epochs}))

    def value(self, curve: Curve, epoch: int) -> str:
        """What ``curve`` is at ``epoch``, as text; empty where it has none."""
        return three_digits(dict(zip(curve.epochs, curve.values, strict=True))[epoch]) if epoch in curve.epochs else ""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Curves of one chart: those whose names begin so."""

    title: str
    unit: str
    prefixes: tuple[str, ...]


# Named as in harness.leaderboard.curves; the last kind takes what no other does
_KINDS = (
    _Kind("Figures on the test images", "percent", ("rank-", "mAP")),
    _Kind("Pseudo-labels against identities", "index", ("labels ARI", "labels NMI")),
    _Kind("Pseudo-labels: links of clusters", "share", ("labels precision", "labels cover")),
    _Kind("Pseudo-labels: outliers", "share of images", ("labels outliers",)),
    _Kind("Losses", "loss", ("",)),
)


def line_charts(curves: Sequence[Curve]) -> tuple[LineChart, ...]:
    """A chart for each kind of quantity that ``curves`` hold, none for a kind without values."""
    remaining, charts = [curve for curve in curves if curve.epochs], []
    epochs = [epoch for curve in remaining for epoch in curve.epochs]
    for kind in _KINDS:
        of_kind = [curve for curve in remaining if curve.name.startswith(kind.prefixes)]
        remaining = [curve for curve in remaining if curve not in of_kind]
        charts += [_chart(kind, of_kind, first=min(epochs), last=max(epochs))] if of_kind else []
    return tuple(charts)


def _chart(kind: _Kind, curves: Sequence[Curve], *, first: int, last: int) -> LineChart:
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    right, bottom = _LEFT + _PLOT_WIDTH, _TOP + _PLOT_HEIGHT
    x = linear(first, last, start=_LEFT, end=right, whole=True)
    y = linear(min(0.0, *values), max(values), start=bottom, end=_TOP)
    return LineChart(
        title=kind.title,
        unit=kind.unit,
        description=f"{kind.title} over epochs {first} to {last}: " + _ends(curves),
        width=coordinate(right + _BESIDE),
        height=coordinate(bottom + _BELOW),
        left=coordinate(_LEFT),
        right=coordinate(right),
        top=coordinate(_TOP),
        bottom=coordinate(bottom),
        x=x,
        y=y,
        lines=tuple(_line(curve, 1 + index % STYLES, x, y) for index, curve in enumerate(curves)),
        curves=tuple(replace(curve, name=_short(curve)) for curve in curves),
    )


def _short(curve: Curve) -> str:
    """Its name without what the chart's title says."""
    return curve.name.removeprefix("labels ").removeprefix("loss ")


def _ends(curves: Iterable[Curve]) -> str:
    return ", ".join(
        f"{_short(curve)} from {three_digits(curve.values[0])} to {three_digits(curve.values[-1])}" for curve in curves
    )


def _line(curve: Curve, style: int, x: Axis, y: Axis) -> Line:
    values = zip(curve.epochs, curve.values, strict=True)
    places = tuple((coordinate(x.place(epoch)), coordinate(y.place(value))) for epoch, value in values)
    return Line(
        name=_short(curve),
        style=style,
        points=" ".join(",".join(place) for place in places),
        dots=places if len(places) <= _SPARSE else places[-1:],
        last=three_digits(curve.values[-1]),
    )
