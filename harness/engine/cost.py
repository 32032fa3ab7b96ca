"""Where the time goes: exclusive seconds per kind of work, images counted, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Exclusive wall time per named kind of work: work started inside other work is not counted twice.

    ``parts``: the same seconds again, of the parts of a kind of work that were named (:meth:`part`, :meth:`passed`).
    ``exact``: wait for the accelerator wherever time is read, so that it is charged to what asked for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.images: dict[str, int] = defaultdict(int)
        self.parts: dict[tuple[str, str], float] = defaultdict(float)
        self.exact = False
        self._stack: list[tuple[str, str | None]] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, work: str, *, images: int = 0) -> Iterator[None]:
        """Count the time of the block, and ``images`` images, as ``work``."""
        with self._on_top(work, None):
            yield
        self.images[work] += images

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block as a part of the work that is going on."""
        with self._on_top(self._stack[-1][0] if self._stack else name, name):
            yield

    def passed(self, name: str) -> None:
        """Count the time since the last change as a part of the work that is going on."""
        if self._stack:
            self._switch(name)

    @contextmanager
    def _on_top(self, work: str, part: str | None) -> Iterator[None]:
        self._switch()
        self._stack.append((work, part))
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def _switch(self, passed: str | None = None) -> None:
        if self.exact and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._stack:
            work, part = self._stack[-1]
            self.seconds[work] += now - self._since
            if part or passed:
                self.parts[work, passed or part or ""] += now - self._since
        self._since = now

    def rate(self, work: str) -> float:
        """Images per second of ``work``; 0 when none was done."""
        seconds = self.seconds.get(work, 0.0)
        return self.images.get(work, 0) / seconds if seconds > 0 else 0.0

    def state(self) -> dict[str, dict[str, float]]:
        """What a checkpoint keeps."""
        return {"seconds": dict(self.seconds), "images": {k: float(v) for k, v in self.images.items()}}

    def restore(self, state: dict[str, dict[str, float]]) -> None:
        """Go on counting from a checkpoint."""
        self.seconds.update(state["seconds"])
        self.images.update({k: int(v) for k, v in state["images"].items()})


def peak_memory_mib() -> float:
    """Peak memory of the process (resident), plus that of the accelerator in use, in MiB."""
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0
    return host + device
