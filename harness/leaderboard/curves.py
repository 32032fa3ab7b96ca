"""Quantities over the epochs of several runs, averaged."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from harness.leaderboard.board import Curve
from harness.leaderboard.record import Record
from harness.leaderboard.statistics import rounded


def mean_curves(records: Sequence[Record]) -> tuple[Curve, ...]:
    """One curve for each quantity, each point the mean over the runs that have it.

    ``rank-1`` and ``mAP`` are in percent, of the primary protocol. ``labels ARI visible`` is of a partition, as are NMI
    and the share of outliers; ``labels precision visible>infrared`` is of a link, as is cover. The rest are losses.
    """
    found: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for name, epoch, value in (*_of_figures(record), *_of_labels(record), *_of_losses(record)):
            found[name][epoch + 1].append(value)
    return tuple(
        Curve(name, tuple(sorted(points)), tuple(rounded(statistics.fmean(points[epoch])) for epoch in sorted(points)))
        for name, points in found.items()
    )


_Point = tuple[str, int, float]


def _of_figures(record: Record) -> Iterator[_Point]:
    for name, field in (("rank-1", "rank1"), ("mAP", "mAP")):
        for row in record.curves:
            if getattr(row, field) is not None:
                yield name, row.epoch, 100 * getattr(row, field)


def _of_labels(record: Record) -> Iterator[_Point]:
    for row in record.pseudo_labels:
        for name, partition in sorted(row.partitions.items()):
            values = {"ARI": partition.ari, "NMI": partition.nmi, "outliers": partition.outlier_share}
            yield from _known(values, name, row.epoch)
        for name, link in sorted(row.links.items()):
            yield from _known({"precision": link.precision, "cover": link.cover}, name, row.epoch)


def _known(values: dict[str, float | None], of: str, epoch: int) -> Iterable[_Point]:
    return ((f"labels {what} {of}", epoch, value) for what, value in values.items() if value is not None)


def _of_losses(record: Record) -> Iterator[_Point]:
    for row in record.curves:
        for name, value in sorted(row.losses.items()):
            yield f"loss {name}", row.epoch, value
