"""Sections that observers add: texts are escaped by the page, drawings become pictures, sizes are bounded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from harness.observations import ReportSection
from harness.reading import printable, shortened

_MOST_SECTIONS = 20
_MOST_ROWS = 200
_MOST_CHARACTERS = 20_000
_MOST_DRAWING = 300_000  # bytes


@dataclass(frozen=True)
class SectionView:
    """A section as the page shows it. ``drawing``: a data URI, shown as a picture: no script of it runs."""

    observer: str
    title: str
    paragraphs: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drawing: str
    cut: bool


def section_views(sections: Sequence[tuple[str, ReportSection]]) -> list[SectionView]:
    """What is shown of the sections that observers gave, by observer."""
    return [_view(observer, section) for observer, section in sections[:_MOST_SECTIONS]]


def _view(observer: str, section: ReportSection) -> SectionView:
    text, rows, svg = section.text[:_MOST_CHARACTERS], section.table[: _MOST_ROWS + 1], section.svg.encode()
    cells = tuple(tuple(shortened(printable(cell), most=200) for cell in row) for row in rows)
    encoded = base64.b64encode(svg).decode("ascii") if len(svg) <= _MOST_DRAWING else ""
    return SectionView(
        observer=observer,
        title=shortened(printable(section.title)),
        paragraphs=tuple(printable(part.replace("\n", " ").strip()) for part in text.split("\n\n") if part.strip()),
        head=cells[0] if cells else (),
        rows=cells[1:],
        drawing=f"data:image/svg+xml;base64,{encoded}" if encoded else "",
        cut=len(text) < len(section.text) or len(rows) < len(section.table) or len(svg) > _MOST_DRAWING,
    )
