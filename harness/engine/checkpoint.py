"""Checkpoints: written aside, synced, renamed; the last two kept; read back without running code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from harness.errors import RunError
from harness.files import replacing

KEPT = 2
_NAME = re.compile(r"epoch-(\d{5})\.pt")


def save_checkpoint(folder: Path, epochs_done: int, state: dict[str, Any]) -> Path:
    """Write the state after ``epochs_done`` epochs. A crash leaves the old files or the new one, never half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epochs_done:05d}.pt"
    with replacing(path) as aside:
        try:
            with aside.open("wb") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"Cannot write the checkpoint {path}: {_first_line(error)}. {_room(folder)} Earlier checkpoints are "
                "untouched: mend the disk and add --resume."
            ) from error
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def _room(folder: Path) -> str:
    return f"The disk had {shutil.disk_usage(folder).free >> 20} MiB left."


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("epoch-*.pt") if _NAME.fullmatch(path.name))


def load_latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint (None if there is none) and a warning for each damaged one passed over."""
    warnings: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "epochs_done" not in state:
                raise ValueError("it is not a checkpoint of this harness")
            return state, warnings
        except Exception as error:
            warnings.append(f"The checkpoint {path.name} is damaged ({_first_line(error)}) and was passed over.")
    return None, warnings
