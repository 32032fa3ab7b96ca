"""A workbench for faults: what one of them does to a run that was going well, and what going on afterwards gives."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from harness.engine import run as run_module
from harness.engine.checkpoint import load_latest
from harness.errors import ContractError, HarnessError, RunStopped
from harness.leaderboard.record import read_record
from toy_parts import Silent, Steady, toy_catalogue
from toy_runs import Ran, run_toy

EPOCHS, BEGUN, ITERATIONS = 3, 2, 3
SETTINGS: dict[str, Any] = {
    "plugins": ["baseline", "steady"],
    "recipe": {"epochs": EPOCHS, "iterations": ITERATIONS},
    "evaluation": {"trials": 1},
}


class Watch(Silent):
    """Counts the iterations that are trained, also in a file that outlives the process."""

    def __init__(self, log: Path | None = None) -> None:
        super().__init__()
        self.trained, self.log = 0, log

    def step(self, epoch, epochs, step, steps):
        self.trained += 1
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(".")


def go(out: Path, *, resume: bool = False, show: Silent | None = None, **values: Any) -> Ran:
    """A run of the toy method, with a label refiner beside it."""
    return run_toy(out, resume=resume, catalogue=toy_catalogue(steady=Steady), show=show, **{**SETTINGS, **values})


def kept(out: Path) -> int:
    """Iterations of the run in ``out`` that its checkpoints hold."""
    found = load_latest(out / "toy" / "checkpoint")
    epochs = found.epoch["epochs_done"] if found.epoch else 0
    return epochs * ITERATIONS + (found.midway["trainer"]["going"]["done"] if found.midway else 0)


def torn(*folders: Path) -> list[str]:
    """Half-written files."""
    return sorted(path.name for folder in folders for kind in ("*.tmp", "*.part") for path in folder.rglob(kind))


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    ``error``: None if the run went on to its end. ``said``: its text, and the record's warnings. ``lost``: iterations
    that had been trained and were trained again. ``torn``: half-written files. ``ran``: the run as it ended at last.
    """

    error: BaseException | None
    said: str
    lost: int
    torn: list[str]
    ran: Ran


@dataclass(frozen=True)
class Fault:
    """One fault. ``says``: a pattern for the part of the error's text, or of the record's warnings, that matters.

    ``error``: None if the run ends well. ``begun``: the run has :data:`BEGUN` epochs when it is met. ``own_data``,
    ``own_cache``: it touches images, or caches. ``same``: which property of the run at the end is the straight run's.
    """

    name: str
    where: str
    inject: Callable[[Tampering], None]
    says: str
    error: type[BaseException] | None = ContractError
    begun: bool = True
    own_data: bool = False
    own_cache: bool = False
    same: str = "bits"


class Tampering:
    """What a fault may lay hands on. Everything is as before when the run has ended."""

    def __init__(self, patch: pytest.MonkeyPatch, out: Path) -> None:
        self.patch, self.out, self.data = patch, out, out.with_name("data")

    @property
    def checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return sorted((self.out / "toy" / "checkpoint").iterdir())

    @property
    def image(self) -> Path:
        """An image of the training set."""
        first = (self.data / "exp" / "train_id.txt").read_text().split(",")[0]
        return min((self.data / "cam3" / f"{int(first):04d}").glob("*.jpg"))

    def changing(self, owner: Any, name: str, change: Callable[..., Any], *, call: int = 1) -> None:
        """``change(before, *args)`` in place of ``owner.name``, from its ``call``-th call on."""
        before, calls = getattr(owner, name), [0]

        def changed(*args, **kwargs):
            calls[0] += 1
            return change(before, *args, **kwargs) if calls[0] >= call else before(*args, **kwargs)

        self.patch.setattr(owner, name, changed)

    def result(self, owner: Any, name: str, change: Callable[[Any], Any], *, call: int = 1) -> None:
        """``change(found)`` for what ``owner.name`` returns, from its ``call``-th call on."""
        self.changing(owner, name, lambda before, *a, **k: change(before(*a, **k)), call=call)

    def raising(self, owner: Any, name: str, error: BaseException, *, call: int = 1) -> None:
        """``error`` from the ``call``-th call of ``owner.name``."""

        def fail(*_, **__):
            raise error

        self.changing(owner, name, fail, call=call)

    def full_disk(self, owner: Any, name: str, size: int, *, call: int = 1) -> None:
        """No file can grow beyond ``size`` bytes during the ``call``-th call of ``owner.name``, and later ones."""

        def limited(before, *args, **kwargs):
            with file_size_limit(size):
                return before(*args, **kwargs)

        self.changing(owner, name, limited, call=call)

    def signals(self, owner: Any, name: str, *numbers: int, call: int = 1) -> None:
        """These signals as the ``call``-th call of ``owner.name`` begins."""
        left = list(numbers)

        def signalled(before, *args, **kwargs):
            while left:
                os.kill(os.getpid(), left.pop(0))
            return before(*args, **kwargs)

        self.changing(owner, name, signalled, call=call)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """As a full disk: writing beyond ``size`` bytes of a file fails in the block (Python ignores the signal)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Bench:
    """Does one thing after the other to copies of a run of the tiny dataset."""

    def __init__(self, root: Path, tiny: Path) -> None:
        self.root, self.tiny = root, tiny

    @cached_property
    def straight(self) -> Ran:
        """The run without any fault."""
        return go(self.root / "straight")

    @cached_property
    def begun(self) -> Path:
        """The same run, stopped after :data:`BEGUN` epochs."""
        out = self.root / "begun"
        with pytest.MonkeyPatch.context() as patch:
            Tampering(patch, out).signals(run_module, "save_checkpoint", signal.SIGTERM, call=BEGUN)
            with pytest.raises(RunStopped):
                go(out)
        return out

    def suffer(self, fault: Fault, out: Path) -> Outcome:
        """Let a run in ``out`` meet the fault, and go on without it.

        Raises what is neither a HarnessError nor KeyboardInterrupt: nothing else may end a run.
        """
        if fault.begun:
            shutil.copytree(self.begun, out)
        values = {"data_root": shutil.copytree(self.tiny, out.with_name("data"))} if fault.own_data else {}
        with pytest.MonkeyPatch.context() as environment:
            if fault.own_cache:
                environment.setenv("HARNESS_CACHE", str(out.with_name("cache")))
            before, show = kept(out), Watch()
            error = self._meet(fault, out, show, values)
            lost, half = before + show.trained - kept(out), torn(out, out.with_name("cache"))
            if values:
                mend(values["data_root"], self.tiny)
            ran = (
                go(out, resume=True, **values)
                if error
                else Ran(read_record(out / "toy/record.json"), out / "toy", show)
            )
        said = "; ".join([*([str(error) or type(error).__name__] if error else []), *ran.record.warnings])
        return Outcome(error, said, lost, half + torn(ran.folder), ran)

    def _meet(self, fault: Fault, out: Path, show: Watch, values: dict[str, Any]) -> BaseException | None:
        with pytest.MonkeyPatch.context() as patch:
            fault.inject(Tampering(patch, out))
            try:
                go(out, resume=True, show=show, **values)
            except (HarnessError, KeyboardInterrupt) as error:
                return error
        return None


def mend(data: Path, whole: Path) -> None:
    """Put back the images that a fault has spoilt."""
    for source in whole.rglob("*.jpg"):
        path = data / source.relative_to(whole)
        if path.is_dir():
            path.rmdir()
        if not path.exists() or path.stat().st_size != source.stat().st_size:
            shutil.copyfile(source, path)
