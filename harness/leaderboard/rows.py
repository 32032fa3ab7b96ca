"""A board made of filed records and published figures.

A table is one version of a dataset under one protocol, of plain or of camera-centred features. A row is one set of
settings on it: its seeds, and its trials where the dataset has them. Of several runs with equal settings, seed and
trial the first one counts, so that a figure cannot be improved by running again; the later ones verify it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.evaluation import PROTOCOLS
from harness.evaluation.figures import FIGURE_NAMES, FigureName
from harness.leaderboard.board import VERIFIED, Board, Estimate, Row, Table
from harness.leaderboard.costs import mean_cost, unit_of
from harness.leaderboard.curves import mean_curves
from harness.leaderboard.filing import Filed
from harness.leaderboard.headings import DATASETS, about, title
from harness.leaderboard.names import slug
from harness.leaderboard.options import differing_settings, options_of
from harness.leaderboard.published import PublishedFigure
from harness.leaderboard.ranking import ranked, row_order
from harness.leaderboard.record import settings_digest
from harness.leaderboard.statistics import Run, difference_to, estimate, seed_means
from harness.leaderboard.versions import Versions

DIGEST_LENGTH = 8
_REGDB_TRIALS = 10

_Runs = dict[Run, Filed]
_Key = tuple[str, str, bool]
"""Version of the dataset, protocol, whether features are camera-centred."""


def board_of(filed: Sequence[Filed], published: Sequence[PublishedFigure], versions: Versions) -> Board:
    """The board of the records of ``filed``, on datasets of ``versions``, and of ``published`` figures.

    Raises:
        RunError: two runs on one version of a dataset had other test queries.
    """
    runs = _counting_runs(filed)
    reported: defaultdict[_Key, list[PublishedFigure]] = defaultdict(list)
    for figure in published:
        reported[figure.dataset, figure.protocol, False].append(figure)
    keys = sorted({*runs, *reported}, key=lambda key: _table_order(key, versions))
    return Board(tuple(_table(key, runs.get(key, {}), reported[key], versions) for key in keys))


def _counting_runs(filed: Iterable[Filed]) -> dict[_Key, dict[str, _Runs]]:
    """The runs that count, by table, digest of their settings, seed and trial."""
    found: defaultdict[_Key, defaultdict[str, _Runs]] = defaultdict(lambda: defaultdict(dict))
    for entry in sorted(filed, key=lambda entry: (entry.record.created, entry.name)):
        digest = settings_digest(entry.record)
        for protocol in entry.record.protocols:
            key = entry.version, protocol, entry.record.extraction.camera_centred
            found[key][digest].setdefault(entry.run, entry)
    return {
        key: {digest: dict(sorted(runs.items(), key=_run_order)) for digest, runs in sorted(rows.items())}
        for key, rows in found.items()
    }


def _run_order(item: tuple[Run, Filed]) -> tuple[int, int]:
    (seed, trial), _ = item
    return seed, trial or 0


def _table_order(key: _Key, versions: Versions) -> tuple[Any, ...]:
    version, protocol, camera_centred = key
    dataset, datasets, listed = PROTOCOLS[protocol].dataset, list(DATASETS), list(versions)
    place = datasets.index(dataset) if dataset in datasets else len(datasets)
    of_version = listed.index(version) if version in listed else -1
    return place, dataset, of_version, list(PROTOCOLS).index(protocol), camera_centred


def _table(key: _Key, runs: Mapping[str, _Runs], reported: Sequence[PublishedFigure], versions: Versions) -> Table:
    name, protocol, camera_centred = key
    version = versions.get(name)
    identifier = slug("-".join([name, *protocol.split("/")[1:], *(["camera-centred"] if camera_centred else [])]))
    rows = [_run_row(identifier, protocol, digest, of_row) for digest, of_row in runs.items()]
    rows = ranked(_told_apart(rows, runs), _records(runs), protocol=protocol)
    rows = [_with_differences(row, runs[row.settings], protocol, reported) for row in rows]
    beside = {row.method for row in rows}
    return Table(
        identifier=identifier,
        title=title(name, PROTOCOLS[protocol], version, camera_centred=camera_centred),
        dataset=name,
        protocol=protocol,
        about=about(protocol, version, reported, runs=bool(rows), ranked=any(row.group for row in rows)),
        rows=(*sorted(rows, key=row_order), *published_rows(identifier, reported)),
        without_record=tuple(figure.method for figure in _by_rank(reported) if figure.plugin not in beside),
    )


def _records(runs: Mapping[str, _Runs]) -> dict[str, dict[Run, Any]]:
    return {digest: {run: entry.record for run, entry in of_row.items()} for digest, of_row in runs.items()}


def _run_row(table: str, protocol: str, digest: str, runs: _Runs) -> Row:
    records = [entry.record for entry in runs.values()]
    first = records[0]
    world_sizes = {record.cost.world_size for record in records}
    return Row(
        identifier=f"{table}-{slug(first.method)}-{digest[:DIGEST_LENGTH]}",
        kind="run",
        method=first.method,
        figures={figure: _estimate(runs, protocol, figure) for figure in FIGURE_NAMES},
        verified=min((entry.verified for entry in runs.values()), key=VERIFIED.index),
        parts=tuple((part.role, part.name) for part in first.parts),
        options=options_of(first),
        encoder=first.encoder.name,
        weights=first.encoder.weights,
        extra_information=tuple(sorted({name for record in records for name in record.extra_information})),
        seeds=tuple(sorted({seed for seed, _ in runs})),
        trials=_trials(runs, protocol),
        selection=first.selection,
        reference=first.reference,
        world_size=world_sizes.pop() if len(world_sizes) == 1 else None,
        bn_batch=first.cost.bn_batch,
        cost=mean_cost([record.cost for record in records]),
        curves=mean_curves(records),
        marks=_marks(runs, protocol),
        settings=digest,
        records=tuple(f"{entry.name}.json" for entry in runs.values()),
    )


def _of_run(runs: _Runs, protocol: str, figure: FigureName) -> dict[Run, float]:
    """A figure of each run, in percent."""
    return {run: 100 * float(getattr(entry.record.protocols[protocol], figure)) for run, entry in runs.items()}


def _estimate(runs: _Runs, protocol: str, figure: FigureName) -> Estimate:
    of_galleries = {run: entry.record.protocols[protocol].sd[figure] for run, entry in runs.items()}
    in_percent = {run: None if sd is None else 100 * sd for run, sd in of_galleries.items()}
    return estimate(_of_run(runs, protocol, figure), in_percent)


def _trials(runs: _Runs, protocol: str) -> int:
    """The number that every seed has: of splits where the dataset has them, else of galleries."""
    if any(trial is None for _, trial in runs):
        return min(entry.record.protocols[protocol].trials for entry in runs.values())
    return min(sum(run[0] == seed for run in runs) for seed in {seed for seed, _ in runs})


def _marks(runs: _Runs, protocol: str) -> tuple[str, ...]:
    """What keeps a row from plain comparison, in words."""
    records = [entry.record for entry in runs.values()]
    first = records[0]
    marks = []
    if first.reference:
        marks.append(_reference_mark(first.reference))
    if first.selection != "last":
        marks.append("epoch chosen " + ("by test figures: optimistic" if first.selection == "oracle" else "label-free"))
    if first.neighbour_search.kind == "approximate":
        recalls = [record.neighbour_search.recall for record in records if record.neighbour_search.recall is not None]
        least = f", recall at least {min(recalls):.3f}" if recalls else ""
        marks.append(f"approximate neighbour search{least}")
    facts = {
        "fewer than ten trials: not comparable with published figures": PROTOCOLS[protocol].dataset == "regdb"
        and _trials(runs, protocol) < _REGDB_TRIALS,
        "made with uncommitted code": any(record.code.dirty for record in records),
        "revision of the code unknown": any(record.code.revision is None for record in records),
        "epochs without training, all images being outliers": any(record.skipped_epochs for record in records),
        "world sizes differ": len({record.cost.world_size for record in records}) > 1,
        "CPU and GPU: no common cost": len({unit_of(record.cost) for record in records}) > 1,
    }
    marks += [fact for fact, holds in facts.items() if holds]
    return (*marks, *(f"another run of seed {run[0]} disagrees" for run, entry in runs.items() if entry.disagrees))


def _told_apart(rows: Sequence[Row], runs: Mapping[str, _Runs]) -> list[Row]:
    """Rows of one method are marked with the settings in which they differ."""
    by_method: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        by_method[row.method, row.reference].append(row)
    found = []
    for alike in by_method.values():
        differing = differing_settings([next(iter(runs[row.settings].values())).record for row in alike])
        found += [replace(row, marks=(*row.marks, *marks)) for row, marks in zip(alike, differing, strict=True)]
    return found


def _with_differences(row: Row, runs: _Runs, protocol: str, reported: Sequence[PublishedFigure]) -> Row:
    """``row`` with its differences to what its method's paper reports, if it does."""
    candidates = [figure for figure in reported if figure.plugin == row.method and figure.reference is None]
    if not candidates or row.reference is not None:
        return row
    # The paper's own figure rather than a released log's or somebody's repetition; a primary source before a secondary
    chosen = min(candidates, key=lambda figure: (figure.method.lower() != figure.plugin, figure.secondary))
    source = f"{chosen.method}: {chosen.source}"
    return replace(
        row,
        differences={
            name: difference_to(value, list(seed_means(_of_run(runs, protocol, name)).values()), source=source)
            for name, value in chosen.figures.items()
        },
    )


def _by_rank(reported: Iterable[PublishedFigure]) -> list[PublishedFigure]:
    return sorted(reported, key=lambda figure: (figure.reference is not None, -figure.figures["rank1"], figure.method))


def published_rows(table: str, reported: Iterable[PublishedFigure]) -> list[Row]:
    """Published figures as rows of ``table``: unsupervised methods before others, best rank-1 first."""
    return [
        Row(
            identifier=f"{table}-published-{slug(figure.method)}",
            kind="published",
            method=figure.method,
            figures={name: Estimate(value) for name, value in figure.figures.items()},
            verified="published",
            source=figure.source,
            paper=figure.paper_title,
            venue=figure.venue,
            year=figure.year,
            secondary=figure.secondary,
            extra_information=(figure.extra_information,) if figure.extra_information else (),
            reference=figure.reference,
            marks=_published_marks(figure),
        )
        for figure in _by_rank(reported)
    ]


def _published_marks(figure: PublishedFigure) -> tuple[str, ...]:
    facts = {
        _reference_mark(figure.reference or ""): figure.reference is not None,
        "secondary source": figure.secondary,
        "somebody else's repetition": figure.source.startswith("third-party"),
        "epoch chosen by test figures: optimistic": "best epoch" in f"{figure.method} {figure.source}",
    }
    return tuple(fact for fact, holds in facts.items() if holds)


def _reference_mark(reference: str) -> str:
    return f"reference ({reference}), not an unsupervised method"
