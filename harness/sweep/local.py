"""Cells on this machine: a slot per GPU, or processes that share the CPU cores."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Protocol

from harness.engine.stopping import Stopped, stoppable
from harness.machine import usable_cores
from harness.sweep.attempt import Attempts, Ended
from harness.sweep.folder import SweepFolder

Slot = Mapping[str, str]
"""The environment of the cells that run in it, one after the other."""


class Watcher(Protocol):
    """What is told while cells run; :class:`harness.cli.sweep.Progress` shows it. Calls come from several threads."""

    def began(self, name: str) -> None: ...
    def ended(self, ended: Ended) -> None: ...
    def note(self, text: str) -> None: ...


def local_slots(jobs: int | None, *, device: str) -> list[Slot]:
    """``jobs`` slots: by default one per GPU, else one. More jobs than GPUs share them in turn."""
    found = visible_gpus() if device in ("auto", "cuda") else []
    if not found:
        return [{} for _ in range(jobs or 1)]
    return [{"CUDA_VISIBLE_DEVICES": found[place % len(found)]} for place in range(jobs or len(found))]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(place) for place in range(count)]


def threads_per_cell(slots: int) -> int:
    """CPU threads that leave every slot its share of the cores."""
    return max(1, usable_cores() // slots)


def run_local(folder: SweepFolder, names: Iterable[str], *, slots: Sequence[Slot], watcher: Watcher) -> list[Ended]:
    """Run cells, as many at a time as there are slots.

    Raises Stopped when the process is asked to stop: the signal is passed on to the running cells, which put down
    what they have done; a second one ends them.
    """
    attempts = Attempts(folder)
    futures: list[Future[Ended]] = []
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free.put(slot)

    def attempt(name: str) -> Ended:
        slot = free.get()
        try:
            if not attempts.stopping:
                watcher.began(name)
            return attempts.run(name, environment=slot)
        finally:
            free.put(slot)

    pool = ThreadPoolExecutor(len(slots))
    with stoppable() as stop:
        try:
            futures.extend(pool.submit(attempt, name) for name in names)
            for future in as_completed(futures):
                watcher.ended(future.result())
        except (Stopped, KeyboardInterrupt):
            _put_down(attempts, pool, futures, number=stop.number or signal.SIGINT, watcher=watcher)
            raise Stopped(stop.number or signal.SIGINT) from None
        finally:
            attempts.stop(signal.SIGTERM)
            pool.shutdown(cancel_futures=True)
    return _results(futures)


def _put_down(
    attempts: Attempts, pool: ThreadPoolExecutor, futures: list[Future[Ended]], *, number: int, watcher: Watcher
) -> None:
    """Pass the request on and wait for the cells; a second request does not wait."""
    try:
        attempts.stop(number)
        watcher.note("stopping: the running cells put down what they have done")
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        attempts.stop(signal.SIGKILL)
        pool.shutdown(cancel_futures=True)


def _results(futures: list[Future[Ended]]) -> list[Ended]:
    return [future.result() for future in futures if not future.cancelled() and not future.exception()]
