"""The check of a RegDB tree: all ten trials."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from harness.data.check.report import CheckReport, Progress, collect, count_table, find_damaged, rendered_note
from harness.data.published import Count, regdb_differences
from harness.data.regdb import (
    FOLDERS,
    MODALITIES,
    SPLITS,
    TRIALS,
    Entry,
    Lists,
    Modality,
    Split,
    list_file,
    list_images,
    missing_lists,
    read_list,
    require_consistent,
    require_disjoint,
    require_files,
    require_layout,
)
from harness.data.trees import name_some
from harness.errors import DataError

_COLUMNS = tuple((split, modality) for split in SPLITS for modality in MODALITIES)


def check_regdb(root: Path, *, progress: Progress | None = None) -> CheckReport:
    """Read the lists of all ten trials, and decode every image that one of them names.

    Args:
        root: the dataset's folder.
        progress: called with (images decoded, images in all).

    Raises:
        DataError: the folder is not a RegDB tree at all.
    """
    root = Path(root)
    require_layout(root)
    trials, unreadable = _read_trials(root)
    counts = {
        (trial, f"{split} {modality}"): Count(len(listed), len({entry.label for entry in listed}))
        for trial, lists in trials.items()
        for (split, modality), listed in lists.items()
    }
    paths = sorted({entry.path for lists in trials.values() for listed in lists.values() for entry in listed})
    present = [path for path in paths if (root / path).is_file()]
    return CheckReport(
        dataset="RegDB",
        root=root,
        counts=counts,
        table=_count_table(counts),
        damaged=find_damaged(root, present, progress=progress),
        strays=tuple(sorted(set(_files(root)) - set(paths))),
        problems=(*_find_missing(root), *unreadable, *_find_problems(root, trials, paths)),
        published=tuple(_compare_published(root, trials)),
        notes=rendered_note(root / "idx" / "rendered.json"),
    )


def _read_trials(root: Path) -> tuple[dict[int, Lists], list[str]]:
    """The lists that can be read, by trial, and what is wrong with the others."""
    trials: dict[int, dict[tuple[Split, Modality], tuple[Entry, ...]]] = {trial: {} for trial in TRIALS}
    unreadable = []
    for trial in TRIALS:
        for split, modality in _COLUMNS:
            file = list_file(root, split, modality, trial)
            if not file.is_file():
                continue
            try:
                trials[trial][split, modality] = read_list(file, modality=modality)
            except DataError as error:
                unreadable.append(str(error))
    return dict(trials), unreadable


def _count_table(counts: Mapping[tuple[int, str], Count]) -> str:
    columns = [f"{split} {modality}" for split, modality in _COLUMNS]
    rows = []
    for trial in TRIALS:
        cells = [counts.get((trial, column)) for column in columns]
        rows.append([trial, *("-" if cell is None else f"{cell.images} ({cell.identities})" for cell in cells)])
    return count_table("Listed images (identities) by trial", rows, headers=["trial", *columns])


def _files(root: Path) -> Iterator[str]:
    for folder in FOLDERS.values():
        for place, _, names in os.walk(root / folder):
            yield from ((Path(place) / name).relative_to(root).as_posix() for name in names)


def _find_missing(root: Path) -> Iterator[str]:
    for trial in TRIALS:
        missing = missing_lists(root, trial)
        if missing:
            yield f"trial {trial}: {name_some(missing)} not found in {root / 'idx'}"


def _find_problems(root: Path, trials: Mapping[int, Lists], paths: list[str]) -> Iterator[str]:
    requirements: list[Callable[[], None]] = [partial(require_files, root, paths)]
    for trial, lists in trials.items():
        for split in SPLITS:
            if _has_split(lists, split):
                requirements.append(partial(require_consistent, root, lists, split=split, trial=trial))
        requirements.append(partial(require_disjoint, root, lists, trial=trial))
    yield from collect(requirements)


def _has_split(lists: Lists, split: Split) -> bool:
    return all((split, modality) in lists for modality in MODALITIES)


def _compare_published(root: Path, trials: Mapping[int, Lists]) -> Iterator[str]:
    """One sentence per difference, with the trials that show it."""
    showing: dict[str, list[int]] = {}
    for trial, lists in trials.items():
        for split in SPLITS:
            if _has_split(lists, split):
                for sentence in regdb_differences(list_images(root, lists, split=split), part=split):
                    showing.setdefault(sentence, []).append(trial)
    for sentence, numbers in showing.items():
        shown = "all trials" if len(numbers) == len(TRIALS) else f"trial {name_some(map(str, numbers))}"
        yield f"{sentence} ({shown})"
