"""Errors that a user is meant to read.

    HarnessError
    ├── SettingsError      a setting, option or command-line value that cannot be used
    ├── DataError          a dataset or image that is missing, damaged or inconsistent
    ├── WeightsError       encoder weights that cannot be found, fetched or fitted
    ├── ProtocolError      an evaluation that the protocol does not define
    ├── PluginError        a plugin that is unknown, broken, or breaks a contract
    │   └── ContractError  a value handed over by a part that does not keep the contract
    ├── RunError           a run folder in the wrong state
    ├── AttributionError   records that cannot be compared part by part
    ├── RunStopped         a run that was asked to stop, and did
    ├── SweepError         a sweep in the wrong state, or cells of it that failed
    │   └── SweepStopped   a sweep that was asked to stop, and did
    └── TrainingError      a training run that cannot go on (NaN, nothing but outliers)

The command line prints the message as one paragraph; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class HarnessError(Exception):
    """Root of every error that the harness raises on purpose. ``exit_code`` is the process's exit status."""

    exit_code = 1


class SettingsError(HarnessError):
    """A setting, option or command-line value that cannot be used."""

    exit_code = 2


class DataError(HarnessError):
    """A dataset or image that is missing, damaged or inconsistent."""


class WeightsError(HarnessError):
    """Encoder weights that cannot be found, fetched or fitted."""


class ProtocolError(HarnessError):
    """An evaluation that the protocol does not define."""


class PluginError(HarnessError):
    """A plugin that is unknown, broken, or in conflict with another one."""

    exit_code = 2


class ContractError(PluginError):
    """A value handed over by a part that does not keep the contract of its role."""

    exit_code = 1


class RunError(HarnessError):
    """A run folder that is missing, taken, finished or damaged."""

    exit_code = 2


class AttributionError(HarnessError):
    """Records that cannot be compared part by part: too few, of several datasets, or none that differ in one part."""

    exit_code = 2


class RunStopped(HarnessError):
    """A run that was asked to stop by a signal. ``exit_code`` is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int, where: str) -> None:
        by = {signal.SIGINT: "Ctrl-C"}.get(number, signal.Signals(number).name)  # type: ignore[call-overload]
        super().__init__(f"stopped by {by} {where}")
        self.exit_code = 128 + number


class SweepError(HarnessError):
    """A sweep's folder that is taken or damaged, or cells of a sweep that failed."""


class SweepStopped(SweepError):
    """A sweep that was asked to stop by a signal. ``exit_code`` is 128 and the signal's number."""

    def __init__(self, number: int, where: str) -> None:
        by = {signal.SIGINT: "Ctrl-C"}.get(number, signal.Signals(number).name)  # type: ignore[call-overload]
        super().__init__(f"stopped by {by}: {where}")
        self.exit_code = 128 + number


class TrainingError(HarnessError):
    """A training run that cannot go on."""


def suggest(given: str, known: Iterable[str]) -> str:
    """A sentence naming the near matches of ``given`` among ``known``, or all of them when nothing is near.

    >>> suggest("tsmen", ["tsmem", "chcr"])
    "Did you mean 'tsmem'?"
    """
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "Known: " + (", ".join(known) or "none") + "."
