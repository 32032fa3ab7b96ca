"""What a leaderboard says, as values: everything that is written from it (Markdown, CSV, LaTeX, the page) reads these.

A board holds tables; a table holds what may be compared: one version of a dataset, one protocol, plain or centred
features. A row is a method under one set of settings, with its seeds; or a published figure, which has a source and no
record. ``harness.leaderboard.rows`` makes a board of records and published figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.evaluation.figures import FigureName

Verified = Literal["published", "run", "re-scored", "retrained"]
"""How far a row is verified: a paper's figure; a record of a run; figures recomputed from its stored embeddings;
an independent record of the same settings agrees."""

VERIFIED: tuple[Verified, ...] = ("published", "run", "re-scored", "retrained")
"""Weakest first."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure in percent: mean over the seeds, sample deviations (None if there is one value), 95 % interval over
    queries (None without records)."""

    mean: float
    sd_seeds: float | None = None
    sd_trials: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over epochs, as the mean over the seeds that have it: ``epochs`` [E] from 1, ``values`` [E].

    ``rank-1`` and ``mAP`` are in percent; ``labels ...`` are of pseudo-labels, shares and indices; ``loss ...`` losses.
    """

    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RowCost:
    """Mean over the runs of a row. ``hours``: device-hours of ``unit``; ``seconds`` by kind of work, one run."""

    hours: float
    unit: Literal["CPU-hours", "GPU-hours"]
    device: str
    peak_memory_mib: float | None
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row's mean minus a published one, in points, with its 95 % interval over the seeds (None for one seed)."""

    published: float
    points: float
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    ``identifier``: stable, unique in the board, fit for a file name and a link. ``parts``: ``(role, name)``;
    ``options``: ``(part, option, value)`` as recorded. ``trials``: that every seed has, galleries or splits.
    ``group``: rows of one group cannot be told apart from the first of the group (paired bootstrap over queries); 1 is
    the best; None for published and reference rows, and where single queries are not recorded. ``pairs``: of every
    other run row of the table, by identifier: the difference in rank-1 and mAP (this minus the other). ``marks``: what
    keeps the row from plain comparison, in words. ``records``: names of the files it comes from.
    """

    identifier: str
    kind: Literal["run", "published"]
    method: str
    figures: dict[FigureName, Estimate]
    verified: Verified
    source: str = ""
    paper: str = ""
    venue: str = ""
    year: int | None = None
    secondary: bool = False
    parts: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str, str], ...] = ()
    encoder: str = ""
    weights: str = ""
    extra_information: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    trials: int = 0
    selection: str = ""
    reference: str | None = None
    world_size: int | None = None
    bn_batch: int | None = None
    cost: RowCost | None = None
    group: int | None = None
    pairs: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[FigureName, Difference] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    marks: tuple[str, ...] = ()
    settings: str = ""
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that may be compared. ``identifier``: stable, fit for a file name. ``rows``: run rows by group and rank-1,
    then reference rows, then published ones by rank-1, unsupervised before others. ``without_record``: methods of the
    published rows that no run row stands beside."""

    identifier: str
    title: str
    dataset: str
    protocol: str
    about: str
    rows: tuple[Row, ...]
    without_record: tuple[str, ...] = ()

    @property
    def run_rows(self) -> tuple[Row, ...]:
        """Rows that have records."""
        return tuple(row for row in self.rows if row.kind == "run")


@dataclass(frozen=True, slots=True)
class Board:
    """All tables, in a fixed order: SYSU-MM01, RegDB, rendered, others by name."""

    tables: tuple[Table, ...]
