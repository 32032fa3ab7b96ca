"""Runs that are killed outright: a process of its own, the point of its end, and what going on afterwards gives."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from harness.leaderboard.record import read_record
from tests.faults.workbench import EPOCHS, ITERATIONS, Outcome, Watch, go, kept, torn

STAGES: dict[str, list[tuple[str, str, int]]] = {
    "clustering": [
        ("harness.engine.train", "extract_features", EPOCHS),
        ("toy_parts", "IndexClusterer.cluster", EPOCHS),
        ("toy_parts", "Unchanged.refine", EPOCHS),
        ("toy_parts", "MeanMemory.build", EPOCHS),
    ],
    "training": [
        ("harness.engine.input", "DrawStream.next", EPOCHS * ITERATIONS),
        ("harness.engine.train", "objective", EPOCHS * ITERATIONS),
        ("harness.engine.train", "Trainer._step", EPOCHS * ITERATIONS),
        ("harness.engine.train", "Trainer._update", EPOCHS * ITERATIONS),
    ],
    "writing a checkpoint": [
        ("harness.engine.run", "save_checkpoint", EPOCHS),
        ("harness.engine.checkpoint", "replacing", EPOCHS),
        ("harness.engine.folder", "RunFolder.write_metrics", EPOCHS),
        ("torch", "save", EPOCHS),
    ],
    "evaluation": [
        ("harness.engine.run", "extract_features", 2),
        ("harness.engine.run", "evaluate_all", 2),
        ("harness.engine.run", "_evaluate", 2),
    ],
    "writing the record": [
        ("harness.engine.run", "_save", 2),
        ("harness.engine.run", "make_record", 1),
        ("harness.engine.run", "write_record", 1),
        ("harness.leaderboard.record", "replace_text", 1),
    ],
}
"""Functions by stage, and how often a run calls each."""

PER_STAGE = 6


@dataclass(frozen=True)
class Point:
    """Where a process ends: ``events`` Python events (calls and returns) into the ``call``-th call of a function, or at
    its end, if that comes first. Of ``torch.save``, after that many bytes."""

    stage: str
    module: str
    function: str
    call: int
    events: int

    def __str__(self) -> str:
        return f"{self.stage}: {self.function} {self.call}, {self.events} events"


def points(stage: str) -> list[Point]:
    """:data:`PER_STAGE` random points of a stage, the same every time."""
    generator = random.Random(zlib.crc32(stage.encode()))
    return [
        Point(stage, module, function, generator.randint(1, calls), int(10 ** generator.uniform(0, 4)))
        for module, function, calls in islice(cycle(STAGES[stage]), PER_STAGE)
    ]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: Point) -> None:
    """Let this process end at ``point``."""
    owner, name = importlib.import_module(point.module), point.function
    if "." in name:
        of, name = name.split(".")
        owner = getattr(owner, of)
    before, calls = getattr(owner, name), [0]

    def armed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] < point.call:
            return before(*args, **kwargs)
        if before is torch.save:
            return before(args[0], Torn(args[1], point.events))
        sys.setprofile(countdown(point.events))
        before(*args, **kwargs)
        die()

    setattr(owner, name, armed)


def countdown(events: int) -> Callable[..., None]:
    left = [events]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:
            die()

    return count


class Torn:
    """A file that ends the process in the middle of a write, with so many bytes on disk."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, size

    def write(self, data: bytes) -> int:
        if len(data) >= self.left:
            self.file.write(bytes(data)[: self.left])
            self.file.flush()
            die()
        self.left -= len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def killed_run(out: Path, cache: str, point: Point) -> None:
    """What the process does that is to be killed."""
    os.environ["HARNESS_CACHE"] = cache
    torch.set_num_threads(1)
    arm(point)
    go(out, show=Watch(out / "iterations"))


def processes() -> Any:
    """Processes that come from one which has imported torch, and begin at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.engine.run", "harness.builtin", "sklearn.cluster"])
    return context


def kill_and_go_on(point: Point, out: Path) -> Outcome:
    """A run that ends at ``point``, gone on with in this process. Raises AssertionError if it was not killed."""
    out.mkdir(parents=True)
    process = processes().Process(target=killed_run, args=(out, os.environ["HARNESS_CACHE"], point))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"{point}: exit status {process.exitcode}"
    log = out / "iterations"
    trained = len(log.read_text()) if log.exists() else 0
    lost = trained - kept(out)
    ran = go(out, resume=True)
    ran.record = ran.record or read_record(ran.folder / "record.json")  # it had finished already
    return Outcome(None, "", lost, torn(ran.folder), ran)
