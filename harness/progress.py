"""Progress of long work, told to whoever listens, without handing a terminal from function to function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the work done so far and the whole work, in the same unit."""

Listener: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the work done so far and the whole work."""

_LISTENER: ContextVar[Listener | None] = ContextVar("harness_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of the work inside the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def progress_of(what: str) -> Progress | None:
    """Where to report ``what``; None if nobody listens."""
    listener = _LISTENER.get()
    return None if listener is None else partial(listener, what)
