"""One cell as a process: an ordinary ``harness run --resume``, its words in a log, its end understood."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from filelock import FileLock, Timeout

from harness.engine.stopping import SIGNALS
from harness.reading import printable, shortened
from harness.sweep.folder import SweepFolder

State = Literal["done", "failed", "stopped", "elsewhere"]
"""``stopped``: told to, and goes on later. ``elsewhere``: another process has the run."""

_LAUNCH = Path(__file__).with_name("launch.py")
_TAIL_BYTES = 16 << 10
_LONGEST_ERROR = 1000
_LOOK_S = 0.2


@dataclass(frozen=True)
class Ended:
    """How an attempt at a cell ended. ``code``: exit status, negative for the number of a signal; ``seconds``: wall."""

    name: str
    state: State
    code: int = 0
    seconds: float = 0.0
    error: str = ""


class Attempts:
    """Attempts at cells of one sweep from this process. They can be stopped all at once, from another thread."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether they have been told to stop."""
        return self._stopping

    def stop(self, number: int) -> None:
        """Send a signal to every running cell; none begins from now on."""
        with self._guard:
            self._stopping = True
            for process in self._running:
                process.send_signal(number)

    def run(self, name: str, *, environment: Mapping[str, str], patience_s: float = 30.0) -> Ended:
        """Run a cell to its end, going on where it was. Notes a failure in the folder, and forgets it on success.

        Args:
            name: of the cell, whose settings are written.
            environment: set for its process, beside this one's.
            patience_s: how long to wait for the run folder: who was killed a moment ago has not left it yet.
        """
        begun = time.monotonic()
        if not self._wait_for(name, begun + patience_s):
            return Ended(name, "stopped" if self._stopping else "elsewhere")
        with self.folder.log(name).open("ab") as log:
            size = log.tell()
            code = self._process(name, environment, log)
        if code is None:
            return Ended(name, "stopped")
        return self._ended(name, code, seconds=time.monotonic() - begun, said=_last_line(self.folder.log(name), size))

    def _wait_for(self, name: str, until: float) -> bool:
        """Whether nobody else has the run."""
        run = self.folder.run(name)
        run.path.mkdir(parents=True, exist_ok=True)
        while not self._stopping:
            try:
                with FileLock(run.lock, timeout=_LOOK_S):
                    return True
            except Timeout:
                if time.monotonic() > until:
                    return False
        return False

    def _process(self, name: str, environment: Mapping[str, str], log: IO[bytes]) -> int | None:
        """The exit status; None if there was no beginning, or the process was stopped with the others."""
        words = ["run", "--settings", str(self.folder.settings(name)), "--out", str(self.folder.runs), "--resume"]
        log.write(f"$ {shlex.join(['harness', *words])}\n".encode())
        log.flush()
        with self._guard:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [sys.executable, str(_LAUNCH), str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C in a terminal reaches it once, from here
            )
            self._running.add(process)
        try:
            return _wait(process)
        except BaseException:  # this thread is torn away: the cell is put down, not left behind
            process.send_signal(signal.SIGTERM)
            _wait(process)
            raise
        finally:
            with self._guard:
                self._running.discard(process)

    def _ended(self, name: str, code: int, *, seconds: float, said: str) -> Ended:
        if code == 0 and self.folder.run(name).finished:
            self.folder.forget_failure(name)
            return Ended(name, "done", 0, seconds)
        if self._stopping or asked_to_stop(code):
            return Ended(name, "stopped", code, seconds, said)
        error = said or "it said nothing"
        if code < 0:
            error = f"killed by {signal.Signals(-code).name} (memory of the machine?) after: {error}"
        self.folder.note_failure(name, code=code, error=error)
        return Ended(name, "failed", code, seconds, error)


def asked_to_stop(code: int) -> bool:
    """Whether an exit status says that a run was stopped by one of the signals that it listens to."""
    return any(code in (-number, 128 + number) for number in SIGNALS)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:  # a look around: in between, this thread can be interrupted
            continue


def _last_line(log: Path, after: int) -> str:
    """The last line of a log beyond a place in it, fit to be shown."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(after, end - _TAIL_BYTES))
        lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").strip().splitlines()
    return shortened(printable(lines[-1].strip()), most=_LONGEST_ERROR) if lines else ""
