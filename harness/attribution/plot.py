"""One forest plot of a report: effects with their intervals, by role. Equal reports are equal bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.attribution.report import Effect, Report
from harness.errors import AttributionError
from harness.evaluation.figures import FigureName, figure_header
from harness.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")

# Okabe and Ito's palette, which the colour-blind tell apart; the marker says the same as the colour
_LOOKS = {
    "stands after Holm": ("#0072B2", "o"),
    "95 % only, not after Holm": ("#D55E00", "s"),
    "within noise": ("#7F7F7F", "D"),
    "no difference in any pair": ("#7F7F7F", "P"),
    "none in any block": ("#7F7F7F", "P"),
    "no interval": ("#000000", "X"),
}
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "harness",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_WITHOUT_DATES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
_LINE_INCHES, _GAP_INCHES = 0.15, 0.12
_WIDTH, _MOST_LINES = 64, 4  # of a label

_Row = tuple[str, str]
"""Heading and change of an effect; a heading's own row has no change."""


def require_format(path: Path) -> str:
    """The format that a file's ending names. Raises AttributionError for an ending of no format."""
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise AttributionError(
            f"A plot is written as {', '.join(FORMATS)}: give a file with one of these endings, not {path.name!r}."
        )
    return form


def write_plot(report: Report, path: Path) -> None:
    """Draw ``report`` to ``path``; its ending (svg, pdf, png) says how. Raises AttributionError for another ending."""
    form = require_format(path)
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = _drawn(report)
        with replacing(path) as aside:
            figure.savefig(aside, format=form, dpi=150, metadata=_WITHOUT_DATES[form])


def _drawn(report: Report) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(report)
    figure = Figure(figsize=(4.0 + 3.2 * len(report.figures), 1.5 + _height(rows.values())), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(report.figures), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, report.figures, strict=True):
        _draw(axes, report, name, rows)
    _label(panels[0], rows)
    title = f"{report.dataset}, {report.protocol}\npaired differences, 95 % intervals over {report.unit}s and partners"
    figure.suptitle(title, fontsize=10).set_parse_math(False)
    _add_legend(figure, report)
    return figure


def _rows(report: Report) -> dict[_Row, float]:
    """Headings, and below each its effects, with their places: inches from the top."""
    rows: dict[_Row, None] = {}
    for effect in (*report.effects, *report.interactions):
        rows[_heading(effect), ""] = None
        rows[_heading(effect), effect.change] = None
    headings = list(dict.fromkeys(heading for heading, _ in rows))
    places: dict[_Row, float] = {}
    top = 0.0
    for row in sorted(rows, key=lambda row: headings.index(row[0])):
        height = _GAP_INCHES + _LINE_INCHES * len(_wrapped(row[1] or row[0]))
        places[row] = top + height / 2
        top += height
    return places


def _height(places: Collection[float]) -> float:
    return max(places) + 2 * _LINE_INCHES + _GAP_INCHES


def _heading(effect: Effect) -> str:
    return {"part": effect.roles, "several": "several at once", "interaction": "interactions"}[effect.kind]


def _draw(axes: Axes, report: Report, name: FigureName, rows: Mapping[_Row, float]) -> None:
    for effect in report.of(name, ("part", "several", "interaction")):
        place = rows[_heading(effect), effect.change]
        colour, marker = _LOOKS[effect.reading]
        mean = effect.mean
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        hollow = "white" if effect.confounded else colour
        axes.plot(mean.points, place, marker, color=colour, markerfacecolor=hollow, markersize=6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{figure_header(name)}, percentage points")


def _label(axes: Axes, rows: Mapping[_Row, float]) -> None:
    axes.set_yticks([*rows.values()])
    texts = axes.set_yticklabels(["\n".join(_wrapped(change or heading)) for heading, change in rows])
    for text, (_, change) in zip(texts, rows, strict=True):
        text.set_parse_math(False)
        text.set_fontweight("normal" if change else "bold")
    axes.set_ylim(_height(rows.values()), -_GAP_INCHES)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, max_lines=_MOST_LINES, break_on_hyphens=False, placeholder=" ...")


def _add_legend(figure: Figure, report: Report) -> None:
    from matplotlib.lines import Line2D

    effects = (*report.effects, *report.interactions)
    there = {effect.reading for effect in effects}
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=1.6, label=reading)
        for reading, (colour, marker) in _LOOKS.items()
        if reading in there
    ]
    if any(effect.confounded for effect in effects):
        handles.append(
            Line2D([], [], color="black", marker="o", markerfacecolor="white", linewidth=0, label="confounded")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
