"""Checkpoints: written aside, synced, renamed; the last two kept; read back without running code.

``epoch-00003.pt`` is the state after three epochs. ``epoch-00003-step-00012.pt`` is what twelve iterations of the next
one have changed since, written when a run is stopped in the middle of it; it goes together with the file at its start.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.engine.compute import is_out_of_memory
from harness.errors import RunError
from harness.files import replacing

KEPT = 2
_NAME = re.compile(r"epoch-(\d{5})\.pt")
_MIDWAY = re.compile(r"epoch-(\d{5})-step-(\d{5,})\.pt")


@dataclass
class Found:
    """What there is to go on from: ``epoch``, the state between two epochs (None: the run's start), ``midway``, that of
    the epoch after it, and a warning for each damaged file that was passed over."""

    epoch: dict[str, Any] | None = None
    midway: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


def save_checkpoint(folder: Path, epochs_done: int, state: dict[str, Any]) -> Path:
    """Write the state after ``epochs_done`` epochs. A crash leaves the old files or the new one, never half a file."""
    path = _write(folder / f"epoch-{epochs_done:05d}.pt", state)
    for old in [*list_checkpoints(folder)[:-KEPT], *_midway_files(folder)]:
        old.unlink(missing_ok=True)
    return path


def save_midway(folder: Path, epochs_done: int, iterations: int, state: dict[str, Any]) -> Path:
    """Write what ``iterations`` of the epoch after ``epochs_done`` epochs have changed."""
    before = _midway_files(folder)
    path = _write(folder / f"epoch-{epochs_done:05d}-step-{iterations:05d}.pt", state)
    for old in before:
        if old != path:
            old.unlink(missing_ok=True)
    return path


def _write(path: Path, state: dict[str, Any]) -> Path:
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as aside, aside.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"Cannot write the checkpoint {path}: {_first_line(_cause(error))}. {_room(folder)} Earlier checkpoints "
            "are untouched: mend the disk and add --resume."
        ) from error
    return path


def _cause(error: BaseException) -> BaseException:
    """What the system said, if it said anything: the writer of the archive hides it behind an error of its own."""
    within = error.__context__
    return within if isinstance(within, OSError) else error


def _room(folder: Path) -> str:
    return f"The disk had {shutil.disk_usage(folder).free >> 20} MiB left."


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the file is named beside it
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints between epochs, oldest first."""
    return sorted(path for path in folder.glob("epoch-*.pt") if _NAME.fullmatch(path.name))


def epochs_kept(folder: Path) -> int:
    """How many epochs the newest checkpoint between epochs holds; 0 if there is none."""
    names = [_NAME.fullmatch(path.name) for path in list_checkpoints(folder)[-1:]]
    return int(names[0][1]) if names and names[0] else 0


def _midway_files(folder: Path) -> list[Path]:
    """Checkpoints in the middle of an epoch, oldest first."""
    return sorted(path for path in folder.glob("epoch-*-step-*.pt") if _MIDWAY.fullmatch(path.name))


def load_latest(folder: Path) -> Found:
    """The newest readable checkpoint, and what was done since, if the run was stopped within an epoch."""
    found = Found()
    unreadable: list[OSError] = []
    for path in reversed(list_checkpoints(folder)):
        found.epoch = _read(path, found.warnings, unreadable)
        if found.epoch is not None:
            break
    else:
        _require_readable(folder, unreadable)
    done = found.epoch["epochs_done"] if found.epoch else 0
    for path in reversed(_midway_files(folder)):
        if path.name.startswith(f"epoch-{done:05d}-") and found.midway is None:
            found.midway = _read(path, found.warnings, unreadable)
    return found


def _require_readable(folder: Path, unreadable: list[OSError]) -> None:
    """Beginning anew would write over checkpoints that are whole, but on a disk that cannot be read just now."""
    if unreadable:
        raise RunError(
            f"No checkpoint in {folder} can be read ({_first_line(unreadable[0])}). They were left alone: mend the "
            "disk and add --resume, or begin anew with --force."
        )


def _read(path: Path, warnings: list[str], unreadable: list[OSError]) -> dict[str, Any] | None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and "epochs_done" in state:
            return state
        what = "is damaged (it is no checkpoint of this harness)"
    except Exception as error:
        if is_out_of_memory(error):
            raise
        what = "is damaged (it is no whole archive of tensors and plain values)"
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # in a file cut short, torch seeks to nowhere
            unreadable.append(error)
            what = f"cannot be read ({_first_line(error)})"
    warnings.append(f"The checkpoint {path.name} {what} and was passed over.")
    return None


@contextmanager
def fitting() -> Iterator[None]:
    """Take a checkpoint's values back. Raises RunError if they are not of a run like this one."""
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"The checkpoint does not fit this run ({type(error).__name__}: {_first_line(error)}): another version of "
            "the harness or of a plugin wrote it. Go on with that version, or begin anew with --force."
        ) from error
