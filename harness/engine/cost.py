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
    """Exclusive wall time per named kind of work: work started inside other work is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.images: dict[str, int] = defaultdict(int)
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, work: str, *, images: int = 0) -> Iterator[None]:
        """Count the time of the block, and ``images`` images, as ``work``."""
        self._switch()
        self._stack.append(work)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()
            self.images[work] += images

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
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
