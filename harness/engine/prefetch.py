"""Batches of an epoch, drawn when asked for or, by a thread, one or two ahead of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from harness.engine.input import DrawnBatch, DrawStream

_PATIENCE_S = 0.1
"""How often a thread that waits for room looks whether it is still wanted."""


class Batches:
    """The batches of all draws, in turn. ``ahead``: how many a thread makes before they are asked for; 0: none.

    What is made ahead and not used leaves no trace: :meth:`states` is that of the batches that were handed out.
    """

    def __init__(self, streams: Sequence[DrawStream], *, ahead: int = 0) -> None:
        self.streams, self.ahead = list(streams), ahead
        self._given: list[dict[str, Any]] = []
        self._made: queue.Queue[_Made] = queue.Queue(maxsize=max(1, ahead))
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def __len__(self) -> int:
        return len(self.streams)

    def states(self) -> list[dict[str, Any]]:
        """What each draw's next batch depends on, as plain values."""
        return list(self._given) if self._thread else [stream.state() for stream in self.streams]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from :meth:`states`, before the first batch is asked for."""
        for stream, state in zip(self.streams, states, strict=True):
            stream.restore(state)

    @contextmanager
    def running(self, rounds: int) -> Iterator[None]:
        """While ``rounds`` batches of every draw are asked for, make them ahead."""
        if not self.ahead:
            yield
            return
        self._given = [stream.state() for stream in self.streams]
        self._thread = threading.Thread(target=self._work, args=(rounds,), name="prefetch", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def next(self, number: int) -> tuple[DrawnBatch, Tensor]:
        """The next batch of draw ``number``, counted from 0, and its pixels; see ``DrawStream.next``."""
        if self._thread is None:
            return self.streams[number].next()
        made = self._made.get()
        if made.error is not None:
            raise made.error
        if made.ready is not None:
            here = torch.cuda.current_stream(made.images.device)
            here.wait_event(made.ready)
            for tensor in (made.images, *made.batch.tensors()):
                tensor.record_stream(here)
        self._given[number] = made.state
        return made.batch, made.images

    def _work(self, rounds: int) -> None:
        try:
            device = self.streams[0].source.device
            beside = torch.cuda.Stream(device) if device.type == "cuda" else None
            for number in list(range(len(self.streams))) * rounds:
                with torch.cuda.stream(beside) if beside else nullcontext():
                    batch, images = self.streams[number].next()
                ready = beside.record_event() if beside else None
                self._put(_Made(batch, images, self.streams[number].state(), ready))
                if self._over.is_set():
                    return
        except BaseException as error:  # it belongs to whoever asks for the batch
            self._put(_Made(error=error))

    def _put(self, made: _Made) -> None:
        while not self._over.is_set():
            try:
                return self._made.put(made, timeout=_PATIENCE_S)
            except queue.Full:
                continue


class _Made:
    """A batch that was made ahead, or why it could not be; ``ready``: when its pixels are, on a GPU."""

    def __init__(
        self,
        batch: Any = None,
        images: Any = None,
        state: Any = None,
        ready: Any = None,
        *,
        error: BaseException | None = None,
    ) -> None:
        self.batch, self.images, self.state, self.ready, self.error = batch, images, state, ready, error
