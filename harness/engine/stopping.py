"""Being asked to stop: Ctrl-C, the end of a job, a scheduler's warning. Work is put down at the next safe place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; what ends a process in good order; what Slurm is usually told to warn with (``--signal=USR1@120``)."""


class Stopped(BaseException):
    """The process was asked to stop, and does. ``number``: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """Whether this process was asked to stop. Outside of :meth:`whole` blocks the request ends it at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._within = 0

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that is not to be torn: a request waits for its end. A second one does not: KeyboardInterrupt."""
        self._within += 1
        try:
            yield
        finally:
            self._within -= 1

    def now(self) -> None:
        """Raise :class:`Stopped` if a request waits."""
        if self.number is not None:
            raise Stopped(self.number)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.number = number
        if not self._within:
            raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Listen to :data:`SIGNALS` during the block (in the main thread; elsewhere nothing is listened to)."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._asked) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
