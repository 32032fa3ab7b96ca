"""A run's folder: what is in it, and who may write to it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.engine.checkpoint import list_checkpoints
from harness.errors import RunError
from harness.files import replace_text

_PATIENCE_S = 1.0
"""Whoever has only just taken a folder has signed after this time, and who is about to leave it has left."""


class RunFolder:
    """``runs/NAME/``: settings.toml, metrics.jsonl, record.json, embeddings and weights (.safetensors), checkpoint/.

    For the report: start.safetensors (embeddings before training) and labels.safetensors (of the last epoch).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "settings.toml"
        self.metrics = path / "metrics.jsonl"
        self.record = path / "record.json"
        self.embeddings = path / "embeddings.safetensors"
        self.weights = path / "weights.safetensors"
        self.start = path / "start.safetensors"
        self.labels = path / "labels.safetensors"
        self.report = path / "report.html"
        self.checkpoints = path / "checkpoint"
        self.observers = path / "observers"
        self.trace = path / "trace.json.gz"
        self.owner = path / "owner"

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
        lock = FileLock(self.path / ".lock", timeout=_PATIENCE_S)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self.owner.write_text(f"process {os.getpid()} on {platform.node()}\n")
        except Timeout as error:
            raise RunError(
                f"The run folder {self.path} is in use by {self._holder()}. Wait for it, or give this run another "
                "--name."
            ) from error
        except OSError as error:
            lock.release()
            raise RunError(f"Cannot make the run folder {self.path}: {error.strerror}.") from error
        try:
            self._remove_torn()
            yield
        finally:
            self.owner.unlink(missing_ok=True)
            lock.release()

    def _holder(self) -> str:
        try:
            return self.owner.read_text().strip() or "another process"
        except FileNotFoundError:
            return "another process"

    def _remove_torn(self) -> None:
        """Remove the half-written files of a process that was killed."""
        for folder in (self.path, self.checkpoints):
            for torn in folder.glob(".*.tmp"):
                torn.unlink(missing_ok=True)

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
        tensors = (self.embeddings, self.weights, self.start, self.labels)
        for file in (self.record, self.settings, self.metrics, self.report, self.trace, *tensors):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.observers):
            shutil.rmtree(folder, ignore_errors=True)

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace metrics.jsonl by ``rows``, one line each: as a whole, so that a full disk leaves no half line."""
        replace_text(self.metrics, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
