"""Drawings by matplotlib: into the page, where they take its colours, or into files for a paper.

A drawing of the page names the colours of the style sheet, so that it is dark where the page is. Equal data give equal
bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup, escape

from harness.files import replacing
from harness.reading import printable, shortened
from harness.report.curves import Chart
from harness.report.maps import EmbeddingMap, PairSimilarities, work_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["svg", "pdf"]

SERIES = ("#0072b2", "#c24e00", "#00785a", "#9c3f78", "#7a5c00", "#444444")
"""Tell apart with any colour vision, and on paper; lines also differ in their dashes, points in their shape."""
_INK, _MUTED, _RULE, _FAINT = "#1b1b1a", "#5a5a56", "#d9d9d3", "#a3a39d"
_OF_PAGE = {
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _FAINT: "var(--faint)",
}
_DASHES = ("solid", (0, (6, 2)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)), (0, (10, 3)), (0, (3, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDTH, _HEIGHT, _ROW = 3.75, 2.35, 0.19  # inches; a row of the legend
_LONGEST = 40  # characters of a name in a legend
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": _INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Drawing:
    """A drawing that can be made: its file name, words for those who do not see it, and the function that draws it."""

    name: str
    title: str
    description: str
    draw: Callable[[], Figure]

    def inline(self) -> Markup:
        """The drawing as an element of the page."""
        with _style():
            text = _svg(self.draw())
        body = text[text.index("<svg") :]
        head, _, rest = body.partition(">")
        box = re.search(r'viewBox="[^"]*"', head)
        width = re.search(r'width="([\d.]+)pt"', head)
        pixels = float(width[1]) * 4 / 3 if width else 360
        for colour, of_page in _OF_PAGE.items():
            rest = rest.replace(colour, of_page)
        rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
        rest = re.sub(r"\n\s*", "\n", rest)
        opening = (
            f'<svg class="plot" role="img" aria-label="{escape(self.description)}" xmlns:xlink='
            f'"http://www.w3.org/1999/xlink" {box[0] if box else ""} style="width:{pixels:.0f}px">'
        )
        return Markup(opening + rest)

    def write(self, folder: Path, form: Format) -> Path:
        """Write the drawing as a file of its own, for a paper."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.{form}"
        dates = {"CreationDate": None} if form == "pdf" else {"Date": None}
        with _style(), replacing(path) as aside:
            figure = self.draw()
            figure.savefig(aside, format=form, metadata=dates)
        return path


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def _svg(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    return written.getvalue()


def _figure(rows: int = 0, *, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """A figure that needs no display, with room for a legend of so many rows below."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(_WIDTH, height + _ROW * rows), layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=True, axis="y")
    return figure, axes


def _legend(figure: Figure, axes: Axes, *, columns: int = 1) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=3.2, columnspacing=1.2)


def _columns(names: Sequence[str]) -> int:
    longest = max(map(len, names), default=0)
    return 3 if longest <= 9 else 2 if longest <= 17 else 1


def _name(text: str) -> str:
    return shortened(printable(text), most=_LONGEST).removeprefix("_") or "unnamed"


def file_name(*words: str) -> str:
    """Words as a plain file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-").lower()[:80] or "plot"


def curve_drawing(chart: Chart) -> Drawing:
    """Lines over epochs."""
    said = "; ".join(
        f"{_name(name)} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in chart.lines.items()
    )

    def draw() -> Figure:
        names = [_name(name) for name in chart.lines]
        columns = _columns(names)
        figure, axes = _figure(-(-len(names) // columns))
        few = len(chart.epochs) <= 15
        for number, (name, points) in zip(chart.styles, chart.lines.items(), strict=True):
            style = number % len(SERIES)
            other = (number + number // len(SERIES)) % len(SERIES)  # a colour that is used again, with other dashes
            axes.plot(
                *zip(*points, strict=True),
                color=SERIES[style],
                linestyle=_DASHES[other],
                marker=_MARKERS[other] if few else None,
                label=_name(name),
                clip_on=False,
            )
        _whole_epochs(axes, chart.epochs)
        _from_zero(axes, [value for points in chart.lines.values() for _, value in points])
        axes.set_ylabel(chart.unit)
        _legend(figure, axes, columns=columns)
        return figure

    return Drawing(
        file_name("curve", chart.title), chart.title, f"{chart.title} ({chart.unit}) over epochs: {said}", draw
    )


def _whole_epochs(axes: Axes, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel("epoch (0: before training)" if 0 in epochs else "epoch")
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)


def _from_zero(axes: Axes, values: Sequence[float]) -> None:
    low, high = min((0.0, *values)), max(values)
    axes.set_ylim(low * 1.05, (high * 1.05) if high > low else high + 1)


def cost_drawing(seconds_of_run: dict[str, dict[str, float]]) -> Drawing:
    """Where the time went: a bar for each kind of work, of each run."""
    works = [work for work, _ in work_shares(_summed(seconds_of_run))][:12]

    def draw() -> Figure:
        runs = list(seconds_of_run)
        figure, axes = _figure(len(runs) if len(runs) > 1 else 0, height=0.8 + 0.2 * len(works) * max(1, len(runs) / 2))
        height = 0.8 / max(1, len(runs))
        for number, run in enumerate(runs):
            places = np.arange(len(works)) + (number - (len(runs) - 1) / 2) * height
            values = [seconds_of_run[run].get(work, 0.0) for work in works]
            axes.barh(places, values, height, color=SERIES[number % len(SERIES)], label=_name(run))
            if len(runs) == 1:
                for place, value in zip(places, values, strict=True):
                    axes.annotate(
                        f"{value:.1f}", (value, place), xytext=(3, 0), textcoords="offset points", va="center", size=8
                    )
        axes.set_yticks(np.arange(len(works)), [_name(work) for work in works])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("seconds")
        if len(runs) > 1:
            _legend(figure, axes)
        return figure

    said = "; ".join(f"{_name(work)} {value:.1f} s" for work, value in work_shares(_summed(seconds_of_run)))
    return Drawing("time", "Time by kind of work", f"Seconds by kind of work: {said}", draw)


def _summed(seconds_of_run: dict[str, dict[str, float]]) -> dict[str, float]:
    works = {work for seconds in seconds_of_run.values() for work in seconds}
    return {work: sum(seconds.get(work, 0.0) for seconds in seconds_of_run.values()) for work in works}


def map_drawing(found: EmbeddingMap, *, when: str, run: str = "") -> Drawing:
    """Test images in two dimensions: colour by person, shape by modality."""

    def draw() -> Figure:
        figure, axes = _figure(-(-(len(found.people) + 2) // 3), height=3.1)
        axes.grid(visible=False)
        size = 9 if len(found.points) > 400 else 14
        for infrared, marker in ((False, "o"), (True, "^")):
            rest = (found.infrared == infrared) & ~np.isin(found.identity, found.people)
            x, y = found.points[rest].T
            axes.scatter(x, y, s=size * 0.7, c=_FAINT, marker=marker, linewidths=0, alpha=0.55)
        for number, person in enumerate(found.people):
            for infrared, marker in ((False, "o"), (True, "^")):
                own = (found.infrared == infrared) & (found.identity == person)
                x, y = found.points[own].T
                axes.scatter(x, y, s=size * 2, c=SERIES[number % len(SERIES)], marker=marker, linewidths=0)
        axes.set_xlabel(found.axes[0])
        axes.set_ylabel(found.axes[1])
        _map_legend(figure, found.people)
        return figure

    said = f"{len(found.points)} test images {when}; {found.axes[0]} against {found.axes[1]}"
    return Drawing(file_name("map", run, when), f"Test images {when}", said, draw)


def _map_legend(figure: Figure, people: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    def dot(marker: str, colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, linestyle="none", label=label)

    shapes = [dot("o", _MUTED, "visible"), dot("^", _MUTED, "infrared")]
    named = [dot("o", SERIES[number % len(SERIES)], f"person {person}") for number, person in enumerate(people)]
    figure.legend(handles=[*shapes, *named], loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=0.8)


def pairs_drawing(found: PairSimilarities, *, when: str, run: str = "", span: tuple[float, float]) -> Drawing:
    """Similarities of visible-infrared pairs, of one person and of two."""

    def draw() -> Figure:
        figure, axes = _figure(2)
        for shares, style, label in ((found.same, 0, "pairs of one person"), (found.other, 1, "pairs of two people")):
            axes.stairs(
                100 * shares, found.edges, color=SERIES[style], label=label, linewidth=1.6, linestyle=_DASHES[style]
            )
            axes.stairs(100 * shares, found.edges, color=SERIES[style], fill=True, alpha=0.18)
        axes.set_xlim(*span)
        axes.set_xlabel("cosine similarity (no unit)")
        axes.set_ylabel("percent of such pairs")
        _legend(figure, axes)
        return figure

    said = (
        f"Visible-infrared pairs {when}: mean similarity {found.mean_same:.3f} of one person, "
        f"{found.mean_other:.3f} of two people; overlap {found.overlap:.3f}"
    )
    return Drawing(file_name("pairs", run, when), f"Pairs across modalities {when}", said, draw)
