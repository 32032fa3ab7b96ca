"""Figures that papers and repositories report, each with its source: ``leaderboards/published.csv``.

Figures are in percent, as printed at the source. A source that begins with ``secondary`` is a table of another paper;
one that begins with ``third-party`` is somebody's repetition. Papers seldom name the gallery rule; nearly every public
evaluation code draws seeded galleries (S), which is assumed unless the source names the official permutations (O).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from harness.errors import DataError
from harness.evaluation.figures import FigureName, FrozenModel
from harness.leaderboard.names import slug
from harness.leaderboard.record import Name
from harness.reading import read_text, shortened

PUBLISHED_NAME = "published.csv"
_MOST_BYTES = 4 << 20
_COLUMN_OF: dict[FigureName, str] = {
    "rank1": "r1",
    "rank5": "r5",
    "rank10": "r10",
    "rank20": "r20",
    "mAP": "map",
    "mINP": "minp",
}
_PROTOCOL_OF = {
    ("sysu-mm01", "all-search"): "sysu-mm01/all/single/S/v1",
    ("sysu-mm01", "indoor-search"): "sysu-mm01/indoor/single/S/v1",
    ("regdb", "visible-to-infrared"): "regdb/visible-to-infrared/v1",
    ("regdb", "infrared-to-visible"): "regdb/infrared-to-visible/v1",
}

Percent = Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False), BeforeValidator(lambda text: text or None)]
Year = Annotated[int | None, Field(ge=1990, le=2100), BeforeValidator(lambda text: text or None)]


class PublishedFigure(FrozenModel):
    """One line of the file: a method's figures in one setting of one dataset, and who says so."""

    method: Name = Field(min_length=1)
    paper_title: Name
    venue: Name
    year: Year
    supervision: Name = Field(min_length=1)
    dataset: Literal["sysu-mm01", "regdb"]
    setting: Literal["all-search", "indoor-search", "visible-to-infrared", "infrared-to-visible"]
    r1: Percent
    r5: Percent
    r10: Percent
    r20: Percent
    map: Percent
    minp: Percent
    source: Name = Field(min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> PublishedFigure:
        if (self.dataset, self.setting) not in _PROTOCOL_OF:
            raise ValueError(f"{self.dataset} has no setting {self.setting}")
        if self.r1 is None:
            raise ValueError("r1 is missing")
        ranks = [value for value in (self.r1, self.r5, self.r10, self.r20) if value is not None]
        if ranks != sorted(ranks):
            raise ValueError("a later rank is below an earlier one")
        return self

    @property
    def protocol(self) -> str:
        """The identifier of the protocol that the figures are taken to follow."""
        identifier = _PROTOCOL_OF[self.dataset, self.setting]
        return identifier.replace("/S/", "/O/") if "official permutation" in self.source else identifier

    @property
    def figures(self) -> dict[FigureName, float]:
        """The reported figures, in percent."""
        values = {figure: getattr(self, column) for figure, column in _COLUMN_OF.items()}
        return {figure: value for figure, value in values.items() if value is not None}

    @property
    def plugin(self) -> str:
        """What a plugin of the method would be called: ``pgm`` for ``PGM (released log)``."""
        return self.method.split(" (")[0].lower()

    @property
    def secondary(self) -> bool:
        """Whether another paper reports the figures."""
        return self.source.startswith("secondary")

    @property
    def reference(self) -> str | None:
        """``supervised`` or ``semi-supervised``; None for an unsupervised method."""
        return None if self.supervision.startswith("unsupervised") else self.supervision

    @property
    def extra_information(self) -> str:
        """What an unsupervised method used beside images, in the source's words: what stands in brackets."""
        return self.supervision.removeprefix("unsupervised").strip(" ()") if self.reference is None else ""


def read_published(path: Path) -> tuple[PublishedFigure, ...]:
    """The figures in a file, in its order; none if there is no such file.

    Raises:
        DataError: a line that cannot be right, or two lines for one method and setting.
    """
    if not path.exists():
        return ()
    text = read_text(path, "table of published figures", most_bytes=_MOST_BYTES, error=DataError, form="a CSV file")
    lines = csv.DictReader(io.StringIO(text), strict=True)
    found: dict[tuple[str, str], PublishedFigure] = {}
    try:
        for line in lines:
            figure = _figure(line, where=f"{path}, line {lines.line_num}")
            key = figure.protocol, slug(figure.method)
            if key in found:
                raise DataError(
                    f"{path}, line {lines.line_num}: {figure.method} has figures under {figure.protocol} already; keep "
                    "one, or tell the two apart in the method's name, as in `PGM (released log)`."
                )
            found[key] = figure
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}, is no CSV: {error}.") from error
    return tuple(found.values())


def _figure(line: dict[str, str], *, where: str) -> PublishedFigure:
    try:
        return PublishedFigure.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(map(str, first["loc"])) or "the line as a whole"
        raise DataError(f"{where}, is not valid at {column}: {shortened(first['msg'], most=300)}.") from error
