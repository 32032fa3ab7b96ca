"""What a sweep leaves on the disk, and how far each of its cells is.

    SWEEP/sweep.toml           the grid, with the threads that a cell takes settled
    SWEEP/cells.json           its cells, by number, with what was skipped
    SWEEP/cells/NAME.toml      a cell's settings, for `harness run --settings`
    SWEEP/runs/NAME/           its run
    SWEEP/logs/NAME.log        what the run said
    SWEEP/failures/NAME.json   why it failed, until it goes well
    SWEEP/board.md             the figures of the finished cells

A cell's state is in its own files: several processes may run different cells of one sweep.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import SweepError
from harness.files import replace_text
from harness.plugins import explain
from harness.reading import parse_json, read_text
from harness.sweep.cells import Cell, Planned
from harness.sweep.grid import Grid, make_grid, read_grid, threads_of

_MOST_BYTES = 64 << 20  # ten thousand cells: 4 MB
_PATIENCE_S = 600.0
"""For others that plan the same sweep: a hundred jobs that begin at once wait for one another."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KeptCell(_Kept):
    """A cell as ``cells.json`` has it; ``number`` is None for one that the grid no longer has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=,-]*$")
    number: int | None
    coordinates: dict[str, Any]
    settings: str


class KeptSkip(_Kept):
    """What was skipped, as ``cells.json`` has it."""

    coordinates: dict[str, Any]
    reason: str


class KeptPlan(_Kept):
    """``cells.json``."""

    cells: list[KeptCell] = Field(default_factory=list)
    skipped: list[KeptSkip] = Field(default_factory=list)


class Failure(_Kept):
    """Why a cell failed. ``code``: its process's exit status, negative for the number of a signal."""

    code: int
    error: str
    attempts: int


@dataclass(frozen=True)
class CellRun:
    """What a sweep looks at in a run's folder; ``harness.engine.folder`` has it whole, and needs torch."""

    path: Path

    @property
    def settings(self) -> Path:
        """Written when the run begins."""
        return self.path / "settings.toml"

    @property
    def record(self) -> Path:
        """Written last."""
        return self.path / "record.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs it."""
        return self.path / ".lock"

    @property
    def finished(self) -> bool:
        """Whether the run ended well."""
        return self.record.exists()


class SweepFolder:
    """A sweep's files. The folder is made when something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.grid = self.path / "sweep.toml"
        self.cells = self.path / "cells.json"
        self.runs = self.path / "runs"
        self.board = self.path / "board.md"
        self._owner = self.path / "owner"

    def settings(self, name: str) -> Path:
        """The file of a cell's settings."""
        return self.path / "cells" / f"{name}.toml"

    def log(self, name: str) -> Path:
        """What a cell's runs have said, the last at the end."""
        return self.path / "logs" / f"{name}.log"

    def run(self, name: str) -> CellRun:
        """The folder of a cell's run."""
        return CellRun(self.runs / name)

    def threads(self) -> int:
        """The CPU threads per cell that this sweep was begun with; 0 for a new one. Raises SettingsError."""
        return threads_of(make_grid(read_grid(self.grid))) if self.grid.exists() else 0

    def kept(self) -> KeptPlan:
        """The cells that this sweep has had so far. Raises SweepError if the file is damaged."""
        if not self.cells.exists():
            return KeptPlan()
        text = read_text(self.cells, "list of cells", most_bytes=_MOST_BYTES, error=SweepError, form="a JSON file")
        try:
            return KeptPlan.model_validate(parse_json(text))
        except ValidationError as error:
            raise SweepError(f"{self.cells} is not a list of cells. {explain(error)}") from error
        except ValueError as error:
            raise SweepError(f"{self.cells} is not a list of cells: {error}.") from error

    def known(self) -> dict[str, str]:
        """Names of cells by the digest of their settings."""
        return {cell.settings: cell.name for cell in self.kept().cells}

    def write(self, grid: Grid, planned: Planned) -> list[str]:
        """Put down grid, cells and their settings. Returns the names of cells that the grid no longer has."""
        kept = self.kept().cells
        now = {cell.digest for cell in planned.cells}
        left = [cell.model_copy(update={"number": None}) for cell in kept if cell.settings not in now]
        cells = [
            KeptCell(name=cell.name, number=cell.number, coordinates=cell.coordinates, settings=cell.digest)
            for cell in planned.cells
        ]
        skipped = [KeptSkip(coordinates=skip.coordinates, reason=skip.reason) for skip in planned.skipped]
        for folder in ("cells", "logs", "failures", "runs"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        _replace(self.grid, grid.to_toml())
        for cell in planned.cells:
            _replace(self.settings(cell.name), cell.settings)
        plan = KeptPlan(cells=[*cells, *left], skipped=skipped).model_dump(mode="json")
        _replace(self.cells, json.dumps(plan, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
        return [cell.name for cell in left]

    def done(self, cell: Cell) -> bool:
        """Whether a cell's run has finished. Raises SweepError if its folder holds a run of other settings."""
        run = self.run(cell.name)
        if run.settings.exists() and run.settings.read_text(encoding="utf-8") != cell.settings:
            raise SweepError(
                f"{run.path} was not begun with the settings of this sweep's cell. Move it away, or give the sweep "
                "another --out."
            )
        return run.finished

    def failure(self, name: str) -> Failure | None:
        """Why a cell failed; None if it did not, or was run well since."""
        path = self._failure(name)
        if not path.exists() or self.run(name).finished:
            return None
        text = read_text(path, "note of a failure", most_bytes=_MOST_BYTES, error=SweepError, form="a JSON file")
        try:
            return Failure.model_validate(parse_json(text))
        except ValueError as error:  # also pydantic's
            raise SweepError(f"{path} is not a note of a failure; remove it to run the cell again.") from error

    def note_failure(self, name: str, *, code: int, error: str) -> None:
        """Remember that a cell failed."""
        before = self.failure(name)
        failure = Failure(code=code, error=error, attempts=1 + (before.attempts if before else 0))
        replace_text(self._failure(name), failure.model_dump_json() + "\n")

    def forget_failure(self, name: str) -> None:
        """The cell went well."""
        self._failure(name).unlink(missing_ok=True)

    def _failure(self, name: str) -> Path:
        return self.path / "failures" / f"{name}.json"

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Hold the list of cells against others for the moment of writing it."""
        with self._locked(".planning", patience_s=_PATIENCE_S):
            yield

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the sweep against a second one. Raises SweepError naming who has it."""
        with self._locked(".lock", patience_s=1.0):
            self._owner.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
            try:
                yield
            finally:
                self._owner.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, *, patience_s: float) -> Iterator[None]:
        lock = FileLock(self.path / name, timeout=patience_s)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise SweepError(
                f"The sweep {self.path} is being run by {self._holder()}. Wait for it, stop it, or give this one "
                "another --out."
            ) from error
        except OSError as error:
            raise SweepError(f"Cannot make the folder of the sweep, {self.path}: {error.strerror}.") from error
        try:
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        try:
            return self._owner.read_text(encoding="utf-8").strip() or "another process"
        except (OSError, UnicodeDecodeError):
            return "another process"


def _replace(path: Path, text: str) -> None:
    """Write what is not there already: cells that run read their settings."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        replace_text(path, text)
