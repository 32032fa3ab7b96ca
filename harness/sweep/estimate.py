"""What the cells of a sweep will take, from the records of earlier runs.

A record's seconds are scaled to the cell's recipe: training by the iterations, extraction and clustering by the epochs,
the rest not at all. A record of the same parts says most; without one, those of other parts on the same dataset do.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import HarnessError
from harness.leaderboard.costs import unit_of
from harness.leaderboard.record import RECORD_NAME, Record, read_record
from harness.recipe import Recipe
from harness.sweep.cells import Cell

_PER_ITERATION = {"input", "training"}
_ONCE = {"data", "test extraction", "evaluation"}
_MOST_RECORDS = 500  # the newest ones: reading a record takes milliseconds


@dataclass(frozen=True)
class Estimate:
    """Seconds of all cells, one after the other; ``cells`` of them are of a record of the same parts, ``alike`` of
    other parts on the same dataset, ``unknown`` of none at all. ``records``: how many were used, on ``devices``."""

    seconds: float
    cells: int
    alike: int
    unknown: int
    records: int
    devices: tuple[str, ...]


def earlier_records(places: Iterable[Path]) -> list[Record]:
    """The records in folders, one level deep or as loose files; what cannot be read is passed over. Newest first."""
    files: dict[Path, float] = {}
    for place in places:
        for path in (*place.glob(f"*/{RECORD_NAME}"), *place.glob("*.json")):
            files[path.resolve()] = path.stat().st_mtime
    newest = sorted(files, key=lambda path: (-files[path], str(path)))[:_MOST_RECORDS]
    return [record for path in newest if (record := _readable(path))]


def _readable(path: Path) -> Record | None:
    try:
        record = read_record(path)
        Recipe.model_validate(record.recipe)
    except (HarnessError, ValidationError):
        return None
    return record


def estimate(cells: Sequence[Cell], records: Sequence[Record], *, on_gpu: bool) -> Estimate | None:
    """What ``cells`` will take; None without any record of their datasets on this kind of device."""
    unit = "GPU-hours" if on_gpu else "CPU-hours"
    usable = [record for record in records if unit_of(record.cost) == unit and record.reference is None]
    total, by_parts, alike, used = 0.0, 0, 0, dict[int, Record]()
    for cell in cells:
        there = [record for record in usable if _same_data(cell, record)]
        same = [record for record in there if _parts(record) == {part.name for part in cell.plan.selection.parts}]
        by_parts += bool(same)
        alike += bool(there and not same)
        for record in same or there:
            used[id(record)] = record
        if there:
            total += statistics.fmean(_scaled(record, cell.plan.recipe) for record in same or there)
    if not used:
        return None
    devices = tuple(sorted({f"{record.cost.device} ({record.cost.threads} threads)" for record in used.values()}))
    return Estimate(total, by_parts, alike, len(cells) - by_parts - alike, len(used), devices)


def _same_data(cell: Cell, record: Record) -> bool:
    settings, dataset = cell.plan.settings, record.dataset
    size = settings.data.get("size") if settings.data_root is None else None
    return dataset.name == settings.dataset and dataset.size == size and record.encoder.name == cell.plan.backbone.name


def _parts(record: Record) -> set[str]:
    return {part.name for part in record.parts}


def _scaled(record: Record, recipe: Recipe) -> float:
    """Seconds of the record's run, had it trained by ``recipe``."""
    before = Recipe.model_validate(record.recipe)
    by_epochs = recipe.epochs / before.epochs if before.epochs else 0.0
    by_images = _images(recipe) / _images(before) if before.epochs else 0.0
    return sum(
        seconds * (by_images if work in _PER_ITERATION else 1.0 if work in _ONCE else by_epochs)
        for work, seconds in record.cost.seconds.items()
    )


def _images(recipe: Recipe) -> int:
    """Images of all batches."""
    visible = recipe.visible_clusters * len(recipe.visible_views)
    infrared = recipe.infrared_clusters * len(recipe.infrared_views)
    iterations = sum(stage.epochs * stage.iterations for stage in recipe.stages)
    return iterations * recipe.instances * (visible + infrared)
