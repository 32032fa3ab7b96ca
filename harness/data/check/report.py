"""The report of a check, and what the checks of all datasets do alike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.data.cache import damage
from harness.data.published import Count
from harness.errors import DataError
from harness.machine import usable_cores

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        dataset: the dataset whose layout was checked, "SYSU-MM01" or "RegDB".
        root: its folder.
        counts: images and identities by (row, column) of ``table``: for SYSU-MM01 by split and camera, for RegDB
            by trial and list.
        table: the counts as text, with a caption.
        damaged: (relative path, reason) of every image that cannot be decoded.
        strays: relative paths of files that are not images of the layout.
        problems: sentences about what is missing or contradictory.
        published: differences from the published dataset; they are no problems.
        notes: sentences worth knowing.
    """

    dataset: str
    root: Path
    counts: Mapping[tuple[Any, Any], Count]
    table: str
    damaged: tuple[tuple[str, str], ...] = ()
    strays: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether training and evaluation can start on this folder."""
        return not self.damaged and not self.problems


def format_check(report: CheckReport, *, limit: int = 20) -> str:
    """``report`` as plain text: a table of counts, then what is wrong; at most ``limit`` lines per list."""
    parts = [f"{report.dataset} tree at {report.root}", *report.notes, "", report.table]
    differences = report.published or (f"all counts equal the published {report.dataset}",)
    parts += ["", "Compared with the published dataset:", *_capped(differences, limit)]
    damaged = [f"{path}: {reason}" for path, reason in report.damaged]
    for title, lines in (
        ("Problems", report.problems),
        ("Damaged images", damaged),
        ("Files that are not part of the layout (ignored)", report.strays),
    ):
        if lines:
            parts += ["", f"{title} ({len(lines)}):", *_capped(lines, limit)]
    verdict = "usable" if report.ok else "NOT usable until the problems above are mended"
    return "\n".join([*parts, "", f"Verdict: {verdict}"])


def count_table(caption: str, rows: Iterable[Iterable[object]], *, headers: Iterable[str]) -> str:
    """A right-aligned table below its caption."""
    table = tabulate(list(rows), headers=list(headers), tablefmt="github", stralign="right", disable_numparse=True)
    return f"{caption}:\n\n{table}"


def collect(requirements: Iterable[Callable[[], object]]) -> Iterator[str]:
    """The messages of the requirements that raise a DataError."""
    for requirement in requirements:
        try:
            requirement()
        except DataError as error:
            yield str(error)


def find_damaged(root: Path, paths: Iterable[str], *, progress: Progress | None) -> tuple[tuple[str, str], ...]:
    """(path, reason) of every image that cannot be decoded, sorted; ``paths`` are relative to ``root``."""
    paths = list(paths)
    found = []
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        reasons = pool.map(lambda path: damage(root / path), paths)
        for done, (path, reason) in enumerate(zip(paths, reasons, strict=True), start=1):
            if reason is not None:
                found.append((path, reason))
            if progress is not None:
                progress(done, len(paths))
    return tuple(sorted(found))


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in ``folder``, by name; nothing if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def rendered_note(description: Path) -> tuple[str, ...]:
    """A sentence saying so if the tree was rendered; ``description`` is the file in which the renderer says how."""
    try:
        found = json.loads(description.read_text())
        return (f"A rendered dataset: size {found['size']}, seed {found['seed']}.",)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError):
        return (f"{description} is there, but does not say how the dataset was rendered.",)


def _capped(lines: Iterable[str], limit: int) -> list[str]:
    lines = list(lines)
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"  {line}" for line in lines[:limit]] + more
