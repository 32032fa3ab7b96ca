"""A run's folder: what is in it, and who may write to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.engine.checkpoint import list_checkpoints
from harness.errors import RunError
from harness.files import replace_text


class RunFolder:
    """``runs/NAME/``: settings.toml, metrics.jsonl, record.json, embeddings and weights (.safetensors), checkpoint/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "settings.toml"
        self.metrics = path / "metrics.jsonl"
        self.record = path / "record.json"
        self.embeddings = path / "embeddings.safetensors"
        self.weights = path / "weights.safetensors"
        self.checkpoints = path / "checkpoint"

    @property
    def finished(self) -> bool:
        """Whether the run ended well: the record is written last."""
        return self.record.exists()

    @property
    def begun(self) -> bool:
        """Whether there is anything of a run."""
        return self.settings.exists() or self.finished or bool(list_checkpoints(self.checkpoints))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder against other processes. Raises RunError if it is taken, or cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the run folder {self.path}: {error.strerror}.") from error
        owner = self.path / "owner"
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            who = owner.read_text().strip() if owner.exists() else "another process"
            raise RunError(
                f"The run folder {self.path} is in use by {who}. Wait for it, or give this run another --name."
            ) from error
        try:
            owner.write_text(f"process {os.getpid()}\n")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def require_fresh(self, *, resume: bool) -> None:
        """Raise RunError if the folder holds a run that the user did not ask to go on with."""
        if self.finished:
            raise RunError(
                f"{self.path} already holds a finished run. Add --force to replace it, --resume to leave finished runs "
                "alone, or --name to keep both; `harness leaderboard show` prints its figures."
            )
        elif self.begun and not resume:
            done = len(list_checkpoints(self.checkpoints))
            state = "an unfinished run" if done else "a run that stopped before its first checkpoint"
            raise RunError(f"{self.path} holds {state}. Add --resume to go on, or --force to begin anew.")

    def clear(self) -> None:
        """Remove what an earlier run left."""
        for file in (self.record, self.settings, self.metrics, self.embeddings, self.weights):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace metrics.jsonl by ``rows`` (used on resume: lines after the checkpoint are dropped)."""
        replace_text(self.metrics, "".join(_line(row) for row in rows))

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"
