"""Several processes as one run: started, watched over, and ended together, with one message.

What goes wrong in all of them alike is raised by the first. What goes wrong in one alone (memory, a broken machine)
leaves the others waiting in a message that never comes; so each looks, beside its work, whether the run is over.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lightning_fabric import Fabric
from torch import distributed

from harness.engine.compute import make_fabric
from harness.engine.processes import Processes
from harness.engine.stopping import SIGNALS
from harness.errors import HarnessError
from harness.settings import ComputeSettings

_LOOK_EVERY_S = 0.2
_GRACE_S = 5.0
"""How long a process whose work failed waits for the first to say the same, and how long the first waits for others."""
_OVER, _FAILED = "over", "failed"


@contextmanager
def together(compute: ComputeSettings, *, lost: Callable[[str], None]) -> Iterator[tuple[Fabric, Processes]]:
    """A Fabric for this process, which knows the others. When one of them fails, all end.

    ``lost`` is told, in the first process, why another one failed; then this process exits. Raises SettingsError for
    devices that are not there.
    """
    fabric = make_fabric(compute)
    if fabric.world_size == 1:
        yield fabric, Processes()
        return
    processes = Processes(fabric.global_rank, fabric.world_size)
    watch = Watch(processes, _children(fabric), lost=lost)
    try:
        yield fabric, processes
    except BaseException as error:
        watch.end(error)
        raise
    watch.close()


def deaf() -> None:
    """Ignore requests to stop: the first process hears them, and tells when the run is over."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Watch:
    """A thread that looks whether the run is over, by a store that the first process keeps."""

    def __init__(self, processes: Processes, children: list[Any], *, lost: Callable[[str], None]) -> None:
        self.processes, self.children, self.lost = processes, children, lost
        self.store = _store(processes)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The run ended well: look no longer."""
        self._closed.set()
        self._thread.join()

    def end(self, error: BaseException) -> None:
        """The work of this process failed, or was stopped: let all others end. Only the first process returns."""
        if self.processes.first:
            self._closed.set()
            self._thread.join()
            self.store.set(_OVER, "1")
            self._see_off()
            return
        time.sleep(_GRACE_S)  # the thread ends this process if the first says the same meanwhile
        code = error.exit_code if isinstance(error, HarnessError) else 1
        what = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        self.store.set(_FAILED, f"{code}\n{what}\n(process {self.processes.rank} of {self.processes.count})")
        time.sleep(_GRACE_S)
        os._exit(0)

    def _see_off(self) -> None:
        deadline = time.monotonic() + _GRACE_S
        while any(child.poll() is None for child in self.children) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        for child in self.children:
            if child.poll() is None:
                child.kill()

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            if self.processes.first:
                self._look_after_others()
            elif self._first_is_gone() and not self._closed.wait(1.0):
                os._exit(0)  # the first process speaks for all; what was started by torchrun must not fail once more

    def _look_after_others(self) -> None:
        if self.store.check([_FAILED]):
            code, what = self.store.get(_FAILED).decode().split("\n", 1)
            self._give_up(what.replace("\n", " "), int(code))
        for number, child in enumerate(self.children, start=1):
            if child.poll():
                self._give_up(
                    f"Process {number} of {self.processes.count} of this run ended without a word (exit status "
                    f"{child.returncode}). What was finished is kept: add --resume.",
                    2,
                )

    def _give_up(self, message: str, code: int) -> None:
        self.lost(message)
        self.store.set(_OVER, "1")
        os._exit(code)

    def _first_is_gone(self) -> bool:
        try:
            return self.store.check([_OVER])
        except RuntimeError:
            return True


def _store(processes: Processes) -> distributed.TCPStore:
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    patience = timedelta(minutes=5)
    if processes.first:
        store = distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience)
        processes.told(store.port)
        return store
    return distributed.TCPStore(host, processes.told(0), is_master=False, timeout=patience)


def _children(fabric: Fabric) -> list[Any]:
    launcher = getattr(fabric.strategy, "launcher", None)
    return list(getattr(launcher, "procs", []))
