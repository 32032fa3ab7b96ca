"""Records as cells of a grid: which parts and settings each run had, and its figures.

A cell is the set of a run's items: its parts, with those of their options in which the runs differ, and the other
settings in which the runs differ (recipe, encoder, extraction, ...). What tells two cells apart is then a difference of
sets, whatever the roles, and a setting that changes along with a part cannot go unnoticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from harness.errors import AttributionError, suggest
from harness.evaluation.figures import FigureName
from harness.leaderboard.filing import RECORDS, seal_of
from harness.leaderboard.names import slug
from harness.leaderboard.options import NOT_SET, flattened
from harness.leaderboard.record import DatasetCard, Record, settings_beside_parts
from harness.leaderboard.statistics import Run
from harness.leaderboard.table import find_records
from harness.plugins import FALLBACK, Catalogue
from harness.reading import printable, shortened

SETTING = "setting"
"""The role of items that are no parts."""

ROLES = ("image transform", "clusterer", "label refiner", "memory", "loss", SETTING)
_SLOTS = ("clusterer", "memory")  # exactly one part in every run
_ORDER = "order of label refiners"
_LONGEST = 60
_MOST_NAMED = 8


@dataclass(frozen=True)
class Item:
    """A part (``value``: its options in which runs differ) or a setting (``value``: what it is)."""

    role: str
    name: str
    value: str = ""

    def __str__(self) -> str:
        what = printable(self.name)
        return f"{what} ({shortened(printable(self.value), most=_LONGEST)})" if self.value else what

    @cached_property
    def order(self) -> tuple[int, str, str, tuple[tuple[float, str], ...]]:
        """Roles as data meets them, then names, then values: numbers by size."""
        return ROLES.index(self.role) if self.role in ROLES else len(ROLES), self.role, self.name, _by_size(self.value)


Cell = frozenset[Item]


@dataclass(frozen=True)
class Grid:
    """The runs on one version of a dataset, under one protocol.

    Attributes:
        dataset: its name, size and seed, as ``--dataset`` takes it.
        unit: what makes runs of one cell independent of each other: ``"seed"``, or ``"trial"`` where there are several
            (a split of the identities each).
        figures: figures in percent, by cell, run (seed and trial) and name.
        reference: the items that others are compared with: the baseline's clusterer, memory and losses where runs have
            them, else the first by name. No label refiner and no image transform is a reference: there, none is.
        notes: what a reader should know of the records.
    """

    dataset: str
    protocol: str
    unit: str
    figures: Mapping[Cell, Mapping[Run, Mapping[FigureName, float]]]
    reference: Cell
    notes: tuple[str, ...]

    def unit_of(self, run: Run) -> int:
        """The seed of a run, or its trial."""
        seed, trial = run
        return seed if self.unit == "seed" else trial or 0

    @property
    def units(self) -> list[int]:
        """All seeds (or trials), in order."""
        return sorted({self.unit_of(run) for runs in self.figures.values() for run in runs})

    @property
    def runs(self) -> int:
        """The number of runs that count."""
        return sum(map(len, self.figures.values()))

    @cached_property
    def items(self) -> list[Item]:
        """All items, in order."""
        return sorted({item for cell in self.figures for item in cell}, key=lambda item: item.order)

    @cached_property
    def first_variants(self) -> Cell:
        """Of every part, the item with the first values of its options."""
        return frozenset({(item.role, item.name): item for item in reversed(self.items)}.values())


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The records under run folders and folders of run folders, in files, and in a board's folder.

    Raises:
        RunError: a path does not exist, holds no record, or holds one that cannot be read.
    """
    return find_records([file for path in paths for file in _files(path)])


def _files(path: Path) -> list[Path]:
    """``path``, or the records of the board that it is."""
    folder = path if path.name == RECORDS else path / RECORDS
    return sorted(folder.glob("*.json")) or [path]


def grid_of(
    records: Sequence[Record],
    figures: Sequence[FigureName],
    *,
    dataset: str | None = None,
    protocol: str | None = None,
) -> Grid:
    """The grid of ``records``, which may be of one dataset and protocol only unless these are named.

    Of runs with equal settings and seed the one that was made last counts, and a note names the others.

    Raises:
        AttributionError: nothing is left to compare, or the dataset or protocol must be named, or is not there.
    """
    version, records = _on_one_dataset(records, dataset)
    protocol, records = _under_one_protocol(records, protocol)
    methods = [record for record in records if record.reference is None]
    left_out = len(records) - len(methods)
    notes = [f"Runs of reference rows are left out: {left_out}. They are no methods."] if left_out else []
    if not methods:
        raise AttributionError(
            "All records are of reference rows, which are no methods: there are no parts to compare."
        )
    counting, repeated = _counting(methods, _cells(methods))
    notes += repeated + _of_code([record for runs in counting.values() for record in runs.values()])
    values = {
        cell: {
            run: _in_percent(record, protocol, figures)
            for run, record in sorted(runs.items(), key=lambda item: run_order(item[0]))
        }
        for cell, runs in sorted(counting.items(), key=lambda item: cell_order(item[0]))
    }
    trials = {record.dataset.trial for record in methods}
    unit = "trial" if len(trials) > 1 else "seed"
    return Grid(version, protocol, unit, values, _reference(values), (*notes, *_missing(values)))


def version_name(card: DatasetCard) -> str:
    """What ``--dataset`` calls the version that a run was made on: ``rendered-small-1``."""
    parts = (card.name, card.size, None if card.seed is None else str(card.seed))
    return slug("-".join(part for part in parts if part is not None))


def _on_one_dataset(records: Sequence[Record], wanted: str | None) -> tuple[str, list[Record]]:
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[version_name(record.dataset)].append(record)
    named = [name for name, of_one in found.items() if wanted in (None, name, of_one[0].dataset.name)]
    if wanted is not None and not named:
        raise AttributionError(f"No record is of the dataset {wanted!r}. {suggest(wanted, found)}")
    if len(named) != 1:
        raise AttributionError(
            f"The records are of {len(named)} datasets, whose figures have no common scale: choose with --dataset "
            f"one of {', '.join(sorted(named))}."
        )
    return named[0], found[named[0]]


def _under_one_protocol(records: Sequence[Record], wanted: str | None) -> tuple[str, list[Record]]:
    names = {record.primary_protocol for record in records} if wanted is None else {wanted}
    if len(names) > 1:
        raise AttributionError(
            f"The records differ in their first protocol: choose with --protocol one of {', '.join(sorted(names))}."
        )
    (protocol,) = names
    scored = [record for record in records if protocol in record.protocols]
    if not scored:
        known = {name for record in records for name in record.protocols}
        raise AttributionError(f"No record has figures under the protocol {protocol!r}. {suggest(protocol, known)}")
    return protocol, scored


def _cells(records: Sequence[Record]) -> list[Cell]:
    options = _differing([{(p.role, p.name): flattened(p.options) for p in record.parts} for record in records])
    settings = [flattened(settings_beside_parts(record) | {"images": record.dataset.fingerprint}) for record in records]
    loose = sorted(name for name in {*(n for one in settings for n in one)} if len({s.get(name) for s in settings}) > 1)
    chains = [tuple(p.name for p in record.parts if p.role == "label refiner") for record in records]
    cells = []
    for record, of_one, chain in zip(records, settings, chains, strict=True):
        parts = {Item(p.role, p.name, _values(flattened(p.options), options[p.role, p.name])) for p in record.parts}
        others = {Item(SETTING, name, of_one.get(name, NOT_SET)) for name in loose}
        several = {other for other in chains if sorted(other) == sorted(chain)}
        order = {Item(SETTING, _ORDER, " > ".join(chain))} if len(several) > 1 else set()
        cells.append(frozenset(parts | others | order))
    return cells


def _differing(runs: Sequence[Mapping[tuple[str, str], Mapping[str, str]]]) -> dict[tuple[str, str], list[str]]:
    """By part, the options in which the runs that have it differ."""
    found = {}
    for part in {part for run in runs for part in run}:
        options = [run[part] for run in runs if part in run]
        names = {name for one in options for name in one}
        found[part] = sorted(name for name in names if len({one.get(name) for one in options}) > 1)
    return found


def _values(options: Mapping[str, str], names: Collection[str]) -> str:
    return ", ".join(f"{name}={options.get(name, NOT_SET)}" for name in names)


def _counting(records: Sequence[Record], cells: Sequence[Cell]) -> tuple[dict[Cell, dict[Run, Record]], list[str]]:
    """The runs that count, by cell, and a note of those that do not."""
    found: defaultdict[Cell, dict[Run, Record]] = defaultdict(dict)
    others = []
    entries = [(record.created, record.name, seal_of(record), n) for n, record in enumerate(records)]
    for _, name, seal, number in sorted(entries):
        record, of_cell = records[number], found[cells[number]]
        before = of_cell.get((record.seed, record.dataset.trial))
        if before is not None and seal_of(before) != seal:
            others.append(f"{before.name} (instead: {name})")
        of_cell[record.seed, record.dataset.trial] = record
    if not others:
        return found, []
    return found, [
        f"Of runs with equal parts, settings and seed the one made last counts. Left out ({len(others)}): "
        f"{_few(sorted(others))}."
    ]


def _of_code(records: Sequence[Record]) -> list[str]:
    revisions = {(record.code.revision or "unknown")[:8] for record in records}
    changed = sum(bool(record.code.dirty) for record in records)
    notes = []
    if len(revisions) > 1:
        notes.append(
            f"The runs are of {len(revisions)} revisions of the code ({_few(sorted(revisions))}): a difference may be "
            "one between revisions."
        )
    if changed:
        notes.append(f"Made with uncommitted code: {changed} of {len(records)} runs.")
    return notes


def _in_percent(record: Record, protocol: str, figures: Sequence[FigureName]) -> dict[FigureName, float]:
    return {figure: 100 * float(getattr(record.protocols[protocol], figure)) for figure in figures}


def _reference(cells: Iterable[Cell]) -> Cell:
    cells = list(cells)
    home = {(part.role, part.name) for part in Catalogue().require(FALLBACK).providers}
    found: set[Item] = set()
    for role in (*_SLOTS, "loss"):
        levels = sorted({_of_role(cell, role) for cell in cells} - {frozenset()}, key=cell_order)
        ours = sorted((i for i in _union(levels) if (i.role, i.name) in home), key=lambda item: item.order)
        first_variants = {item.name: item for item in reversed(ours)}
        found |= {*first_variants.values()} if ours else (levels[0] if levels else set())
    return frozenset(found)


def _missing(cells: Mapping[Cell, Mapping[Run, Any]]) -> Iterator[str]:
    """What the full product of what there is would have beside."""
    roles = sorted({item.role for cell in cells for item in cell})
    count = prod(len({_of_role(cell, role) for cell in cells}) for role in roles)
    if count > len(cells):
        yield (
            f"Cells: {len(cells)} of the {count} that the full product of their parts and settings has; the others "
            "were not run, or cannot be, where parts come together."
        )
    every = sorted({run for runs in cells.values() for run in runs}, key=run_order)
    gaps = [f"{words(cell)}, {_run_name(run)}" for cell, runs in cells.items() for run in every if run not in runs]
    if gaps:
        yield f"Missing runs: {len(gaps)} of {len(cells)} cells x {len(every)} each. {_few(gaps, by='; ')}."


def run_order(run: Run) -> tuple[int, int]:
    """By seed, then by trial."""
    seed, trial = run
    return seed, trial or 0


def _run_name(run: Run) -> str:
    seed, trial = run
    return f"seed {seed}" if trial is None else f"seed {seed}, trial {trial}"


def words(cell: Cell) -> str:
    """The parts of a cell, as text."""
    return " + ".join(str(item) for item in sorted(cell, key=lambda item: item.order) if item.role != SETTING)


def _of_role(cell: Cell, role: str) -> Cell:
    return frozenset(item for item in cell if item.role == role)


def _union(cells: Iterable[Cell]) -> Cell:
    return frozenset(item for cell in cells for item in cell)


def cell_order(cell: Cell) -> list[Any]:
    return [item.order for item in sorted(cell, key=lambda item: item.order)]


def _by_size(value: str) -> tuple[tuple[float, str], ...]:
    return tuple((_number(word.rpartition("=")[2]), word) for word in value.split(", "))


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if found == found else 0.0


def _few(words: Sequence[str], *, by: str = ", ") -> str:
    more = f"{by}and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return by.join(map(printable, words[:_MOST_NAMED])) + more
