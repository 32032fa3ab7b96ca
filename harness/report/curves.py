"""Curves over epochs: points by name, and which of them share a chart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from harness.engine.observers import epoch_figures
from harness.reading import printable, shortened
from harness.report.source import Source

Points = tuple[tuple[int, float], ...]
"""Epochs, from 1 (0: before training), and values."""


@dataclass(frozen=True)
class Kind:
    """A chart: curves whose names begin so. ``scale``: 100 for shares that are shown in percent."""

    title: str
    unit: str
    prefixes: tuple[str, ...]
    scale: float = 1.0


KINDS = (
    Kind("Losses", "loss (mean over the epoch)", ("loss ",)),
    Kind("Retrieval of test images", "percent", ("rank-1", "mAP"), 100),
    Kind("Clusters against true identities", "agreement (1: equal)", ("ARI ", "NMI ")),
    Kind("Number of clusters and identities", "number", ("clusters ", "identities ")),
    Kind("Outliers", "percent of images", ("outliers ",), 100),
    Kind("Clusters of both modalities", "percent of clusters", ("mixed clusters ",), 100),
    Kind("Right cross-modality positive pairs", "percent of pairs", ("pair precision ",), 100),
    Kind("Links between clusters", "percent", ("link precision ", "link cover "), 100),
    Kind("Learning rate", "learning rate", ("learning rate",)),
)


_PARTITIONS = ("visible", "infrared", "joint")
_TRIVIAL = ("mixed clusters visible", "mixed clusters infrared")
"""Curves that are always zero: a partition of one modality mixes none."""


def curves_of(source: Source) -> dict[str, Points]:
    """Every curve of a run by name, with the figures before training and of the record at their epochs."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in source.rows:
        for name, value in epoch_figures(row).items():
            found[name][row["epoch"] + 1] = value
    for figures, epoch in ((source.start.figures if source.start else {}, 0), (_last(source), source.done)):
        for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
            if key in figures:
                found[name][epoch] = figures[key]
    return {name: tuple(sorted(points.items())) for name, points in found.items() if name not in _TRIVIAL}


def _last(source: Source) -> Mapping[str, float]:
    if source.record is None:
        return {}
    figures = source.record.protocols[source.record.primary_protocol]
    return {"rank1": figures.rank1, "mAP": figures.mAP}


@dataclass(frozen=True)
class Chart:
    """Lines by name that share a unit, scaled to it. ``styles``: a number for each line, which says how it looks."""

    title: str
    unit: str
    lines: dict[str, Points]
    styles: tuple[int, ...]

    @property
    def epochs(self) -> list[int]:
        """Every epoch that one of the lines has."""
        return sorted({epoch for points in self.lines.values() for epoch, _ in points})

    @property
    def table(self) -> list[tuple[int, list[float | None]]]:
        """The values by epoch, in the order of the lines."""
        of_line = [dict(points) for points in self.lines.values()]
        return [(epoch, [points.get(epoch) for points in of_line]) for epoch in self.epochs]


def charts_of(runs: Mapping[str, Mapping[str, Points]]) -> list[Chart]:
    """One run: a chart for each kind of curve. Several: one for each curve, with a line for each run."""
    if len(runs) == 1:
        (curves,) = runs.values()
        return [chart for kind in KINDS if (chart := _chart(kind, kind.title, _of_kind(kind, curves))).lines]
    names = dict.fromkeys(name for curves in runs.values() for name in curves if not name.startswith("identities "))
    charts = []
    for kind in KINDS:
        for name in sorted((name for name in names if name.startswith(kind.prefixes)), key=partial(_order, kind)):
            having = {run: curves[name] for run, curves in runs.items() if name in curves}
            styles = tuple(number for number, run in enumerate(runs) if run in having)
            charts.append(_chart(kind, _title(kind, name), having, styles))
    return charts


def _title(kind: Kind, name: str) -> str:
    return name[0].upper() + name[1:] if kind.title != "Learning rate" else kind.title


def _of_kind(kind: Kind, curves: Mapping[str, Points]) -> dict[str, Points]:
    """The curves of a chart under the names of its legend; always in the same order, so that colours mean the same."""
    single = len(kind.prefixes) == 1
    names = sorted((name for name in curves if name.startswith(kind.prefixes)), key=partial(_order, kind))
    found = {(name.removeprefix(kind.prefixes[0]) or name) if single else name: curves[name] for name in names}
    people = {name for name in found if name.startswith("identities ")}
    if len({value for name in people for _, value in found[name]}) == 1:  # as in every partition: one line says it
        counted = max((found[name] for name in people), key=len)
        found = {name: points for name, points in found.items() if name not in people} | {"identities": counted}
    return found


def _order(kind: Kind, name: str) -> tuple[int, int, str]:
    prefix = next(place for place, prefix in enumerate(kind.prefixes) if name.startswith(prefix))
    of = name.removeprefix(kind.prefixes[prefix])
    return prefix, _PARTITIONS.index(of) if of in _PARTITIONS else len(_PARTITIONS), of


def _chart(kind: Kind, title: str, curves: Mapping[str, Points], styles: tuple[int, ...] | None = None) -> Chart:
    scaled = {name: tuple((epoch, kind.scale * value) for epoch, value in points) for name, points in curves.items()}
    return Chart(shortened(printable(title)), kind.unit, scaled, styles or tuple(range(len(scaled))))
