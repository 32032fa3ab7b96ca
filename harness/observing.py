"""Observers at work: plugins that follow a run, in a process of their own.

A plugin may run any code, so what shares a process with the training could change a number: draw from its random
streams, set its threads, reach its weights. Observers therefore share none. They are told what happens through a pipe,
as the plain values of :mod:`harness.observations`, and nothing but warnings and report sections comes back. The run
never waits for them before its end; one that fails, hangs or dies costs a warning.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Thread
from typing import IO, Any

from harness.errors import PluginError
from harness.observations import (
    ObservedEpoch,
    ObservedFailure,
    ObservedResult,
    ObservedRun,
    ReportedRun,
    ReportSection,
    from_plain,
    to_plain,
)
from harness.plugins import GROUP, OBSERVER_HOOKS, Plugin, load
from harness.reading import printable, shortened

PATIENCE_S = 60.0
"""How long an observer may take to answer when a run or a report ends. Importing TensorBoard takes a few seconds."""

_MOST_BYTES = 16 << 20  # of one answer; a report of more than 5 MB is too large anyway
_MOST_CHARACTERS = 500  # of one complaint
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from harness.observing import main; main()"
_KINDS: dict[str, type] = {
    "run": ObservedRun,
    "epoch": ObservedEpoch,
    "result": ObservedResult,
    "failure": ObservedFailure,
}


class Observers:
    """The observers of one run or report. A context manager; without any observer nothing is started.

    Args:
        plugins: those that observe.
        log: file for what they print; None: nowhere.
        warned: called with a sentence for each thing that went wrong, once.
    """

    def __init__(self, plugins: Sequence[Plugin], *, log: Path | None, warned: Callable[[str], None]) -> None:
        self.names = tuple(plugin.name for plugin in plugins)
        self._warned, self._said = warned, set[str]()
        self._to: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._from: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = self._started(plugins, log) if plugins else None

    def _started(self, plugins: Sequence[Plugin], log: Path | None) -> subprocess.Popen[bytes] | None:
        try:
            process = _child(log)
        except OSError as error:
            self._complain(f"Observers could not be started: {error.strerror or error}. Nothing is observed.")
            return None
        for work in (_write_from, _read_into):
            pipe, lines = (process.stdin, self._to) if work is _write_from else (process.stdout, self._from)
            Thread(target=work, args=(pipe, lines), daemon=True).start()
        self._to.put(json.dumps([{"name": plugin.name, "target": plugin.target} for plugin in plugins]))
        return process

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, hook: str, **values: Any) -> None:
        """Let every observer know; nothing is waited for."""
        if self._process is not None:
            self._to.put(json.dumps({"hook": hook, "values": {name: _plain(value) for name, value in values.items()}}))
            self.listen()

    def listen(self) -> None:
        """Hand on what observers complained of so far."""
        for _ in self._answers(until=0.0):
            pass

    def settle(self) -> None:
        """Wait until the observers have caught up. One that does not within :data:`PATIENCE_S` is left behind."""
        self._ask({"settled": True}, "settled")

    def sections(self, runs: Sequence[ReportedRun]) -> list[tuple[str, ReportSection]]:
        """What the observers add to a report of these runs, with the name of the one that adds it."""
        message = {"hook": "harness_report_sections", "values": {"runs": [to_plain(run) for run in runs]}}
        return [(name, from_plain(ReportSection, section)) for name, section in self._ask(message, "sections") or []]

    def close(self) -> None:
        """Wait for the observers to catch up, and end their process."""
        if self._process is None:
            return
        self.settle()
        process, self._process = self._process, None
        if process is not None:
            self._to.put(None)
            _end(process)

    def _ask(self, message: Mapping[str, Any], key: str) -> Any:
        if self._process is None:
            return None
        self._to.put(json.dumps(message))
        for answer in self._answers(until=time.monotonic() + PATIENCE_S):
            if key in answer:
                return answer[key]
        self._give_up()
        return None

    def _answers(self, *, until: float) -> Iterator[dict[str, Any]]:
        while True:
            left = until - time.monotonic()
            try:
                line = self._from.get(timeout=left) if left > 0 else self._from.get_nowait()
            except queue.Empty:
                return
            if line is None:  # the process has ended
                self._give_up("ended early")
                return
            answer = json.loads(line)
            if "complaint" in answer:
                self._complain(answer["complaint"])
            yield answer

    def _give_up(self, why: str = f"did not answer within {PATIENCE_S:.0f} s and was left behind") -> None:
        process, self._process = self._process, None
        if process is not None:
            self._complain(f"The process of the observers ({', '.join(self.names)}) {why}.")
            process.kill()
            process.wait()

    def _complain(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._warned(text)


def choose_observers(require: Callable[[str], Plugin], names: Sequence[str]) -> tuple[Plugin, ...]:
    """The plugins of these names. Raises PluginError for one that is unknown, broken or has no observer hook."""
    found = tuple(require(name) for name in dict.fromkeys(names))
    for plugin in found:
        if not plugin.observes:
            hooks = ", ".join(OBSERVER_HOOKS)
            raise PluginError(
                f"The plugin {plugin.name!r} observes nothing: it has none of the hooks {hooks}. `harness plugins` "
                "says which plugins are observers."
            )
    return found


def _child(log: Path | None) -> subprocess.Popen[bytes]:
    """A session of its own, so that Ctrl-C and a job's signals go to the run alone; no accelerator."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    said = log.open("ab") if log is not None else None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said if said is not None else subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    finally:
        if said is not None:
            said.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _plain(value: Any) -> Any:
    return [to_plain(item) for item in value] if isinstance(value, (list, tuple)) else to_plain(value)


def _write_from(pipe: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    """Write lines until None; a pipe that nobody reads holds up this thread only."""
    try:
        with pipe:
            for line in iter(lines.get, None):
                pipe.write(line.encode() + b"\n")
                pipe.flush()
    except OSError:
        pass  # the process has ended, as its other pipe says too


def _read_into(pipe: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    with pipe:
        for line in iter(lambda: pipe.readline(_MOST_BYTES), b""):
            if not line.endswith(b"\n"):
                break
            lines.put(line.decode())
    lines.put(None)


# ---------------------------------------------------------------------------------------------------------------
# in the process of the observers


def main() -> None:
    """Load the observers that the first line names, then do what each further line says, until there is none."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # a job's signals are the run's affair
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an observer prints is no answer
    child = _Child(answers)
    child.load(json.loads(sys.stdin.readline() or "[]"))
    for line in sys.stdin:
        child.obey(json.loads(line))


class _Child:
    def __init__(self, answers: IO[str]) -> None:
        self.answers = answers
        self.plugins: list[Plugin] = []

    def load(self, observers: Sequence[Mapping[str, str]]) -> None:
        for observer in observers:
            with _Blamed(self, observer["name"], "loading"):
                plugin = load(observer["name"], EntryPoint(group=GROUP, value=observer["target"], name="").load())
                if plugin.problem:
                    raise PluginError(plugin.problem)
                self.plugins.append(plugin)

    def obey(self, message: Mapping[str, Any]) -> None:
        if "settled" in message:
            self.answer(settled=True)
        elif message["hook"] == "harness_report_sections":
            self.answer(sections=self._sections(message["values"]["runs"]))
        else:
            for plugin in self.plugins:
                with _Blamed(self, plugin.name, message["hook"]):
                    plugin.observe(message["hook"], **_values(message["values"], plugin.name))

    def _sections(self, runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for plugin in self.plugins:
            with _Blamed(self, plugin.name, "harness_report_sections"):
                reported = tuple(_own(from_plain(ReportedRun, run), plugin.name) for run in runs)
                for sections in plugin.observe("harness_report_sections", runs=reported):
                    found += [(plugin.name, _checked(section)) for section in sections]
        return found

    def answer(self, **values: Any) -> None:
        self.answers.write(json.dumps(values) + "\n")
        self.answers.flush()


class _Blamed:
    """What an observer raises becomes a complaint that names it."""

    def __init__(self, child: _Child, name: str, hook: str) -> None:
        self.child, self.name, self.hook = child, name, hook

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        what = shortened(printable(f"{type(error).__name__}: {error}"), most=_MOST_CHARACTERS)
        self.child.answer(complaint=f"The observer {self.name!r} failed in {self.hook}: {what}")
        return isinstance(error, (Exception, SystemExit))


def _values(plain: Mapping[str, Any], observer: str) -> dict[str, Any]:
    """Made anew for each observer, so that none sees what another has done to them."""
    return {name: _own(from_plain(_KINDS[name], value), observer) for name, value in plain.items()}


def _own(value: Any, observer: str) -> Any:
    """With a folder of the observer's own, if there is one in it. A report's is only named: it may be read-only."""
    if not isinstance(value, (ObservedRun, ReportedRun)):
        return value
    own = replace(value, folder=value.folder / observer)
    if isinstance(own, ObservedRun):
        own.folder.mkdir(parents=True, exist_ok=True)
    return own


def _checked(section: Any) -> dict[str, Any]:
    texts = (
        isinstance(section, ReportSection)
        and all(isinstance(value, str) for value in (section.title, section.text, section.svg))
        and all(isinstance(cell, str) for row in section.table for cell in row)
    )
    if not texts:
        raise PluginError(f"harness_report_sections yields harness.ReportSection values of texts; got {section!r}.")
    found: dict[str, Any] = to_plain(section)
    return found
