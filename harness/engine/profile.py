"""Where the time of a run goes: a table, and a trace of a few iterations. The figures of the run stay as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it would write of GPUs that are not there into the run's output

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from harness.engine.cost import Clock
from harness.progress import Listener

CLUSTERING_STEPS = ("search", "encoding", "expansion", "overlap")
"""The passes over the rows that the Jaccard distance counts (``harness.clustering.jaccard``), in their order."""
_TRACED = 2
"""Iterations in the trace: enough to see a step, few enough to open it."""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Seconds of one kind of work, or of a part of one; ``share`` of all seconds, 0..1."""

    work: str
    part: str | None
    seconds: float
    share: float


class Profile:
    """Measures a run. ``trace``: the file that the trace of a few iterations is written to, in Chrome's format."""

    def __init__(self, clock: Clock, trace: Path, *, device: torch.device) -> None:
        self.clock, self.trace = clock, trace
        self.before = dict(clock.seconds)  # a resumed run has seconds that were not measured here
        clock.exact = True
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=1, warmup=1, active=_TRACED, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(trace)),
        )
        self._steps = 0

    def step(self) -> None:
        """An iteration has ended."""
        if self._steps == 0:
            self._profiler.start()
        if 0 < self._steps <= _TRACED + 1:
            self._profiler.step()
        if self._steps == _TRACED + 1:
            self._profiler.stop()
        self._steps += 1

    def close(self) -> None:
        """Nothing follows."""
        if 0 < self._steps <= _TRACED + 1:
            self._profiler.stop()

    def hearing(self, listener: Listener) -> Listener:
        """``listener``, and what it is told taken for the steps of clusterings."""

        def heard(what: str, done: int, total: int) -> None:
            step = clustering_step(what, done, total)
            if step is not None:
                self.clock.passed(step)
            listener(what, done, total)

        return heard

    def rows(self) -> list[ProfileRow]:
        """Kinds of work, the longest first, each followed by its parts and by what is left beside them."""
        spent = {work: seconds - self.before.get(work, 0.0) for work, seconds in self.clock.seconds.items()}
        whole = sum(spent.values()) or 1.0
        found = []
        for work in sorted(spent, key=spent.__getitem__, reverse=True):
            found.append(ProfileRow(work, None, spent[work], spent[work] / whole))
            parts = {part: seconds for (of, part), seconds in self.clock.parts.items() if of == work}
            rest = spent[work] - sum(parts.values())
            if CLUSTERING_STEPS[-1] in parts:
                parts["DBSCAN and the rest"] = max(rest, 0.0)
            elif parts and rest > 0.0005:
                parts["rest"] = rest
            ordered = sorted(parts, key=parts.__getitem__, reverse=True)
            found += [ProfileRow(work, part, parts[part], parts[part] / whole) for part in ordered]
        return found


def clustering_step(what: str, done: int, total: int) -> str | None:
    """The step of a clustering that has just come to ``done`` of ``total``; None for other work."""
    if what == "searching neighbours":
        return CLUSTERING_STEPS[0]
    if what != "clustering" or not total:
        return None
    return CLUSTERING_STEPS[min(max(0, done - 1) * len(CLUSTERING_STEPS) // total, len(CLUSTERING_STEPS) - 1)]
