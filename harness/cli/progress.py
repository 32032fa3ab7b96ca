"""Progress for a terminal (rich) or for a log file (plain lines)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A callback ``(done, total)``: a bar on a terminal; elsewhere one line when it ends, if it did anything."""
    if not sys.stderr.isatty():
        seen = [0]

        def plain(done: int, total: int) -> None:
            seen[0] = total

        yield plain
        if seen[0]:
            print(f"{what}: {seen[0]} {unit}", file=sys.stderr, flush=True)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
