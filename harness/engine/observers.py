"""What observers of a run are told, and when: figures by name, made of the rows of metrics.jsonl and of the record."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engine.plan import Plan
from harness.evaluation import FIGURE_NAMES
from harness.evaluation.figures import figure_header
from harness.leaderboard.record import Record
from harness.observations import ObservedEpoch, ObservedFailure, ObservedResult, ObservedRun
from harness.observing import Observers
from harness.settings import Settings

LABEL_FIGURES = {
    "ari": "ARI",
    "nmi": "NMI",
    "clusters": "clusters",
    "identities": "identities",
    "outlier_share": "outliers",
    "mixed_share": "mixed clusters",
}
LINK_FIGURES = {"precision": "link precision", "cover": "link cover"}


def epoch_figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one row of metrics.jsonl by name; what is missing, or is no finite number, is left out."""
    labels = _mapping(row, "labels")
    found = {f"loss {name}": value for name, value in _mapping(row, "losses").items()}
    found |= dict(_by_kind(_mapping(labels, "partitions"), LABEL_FIGURES))
    found |= dict(_by_kind(_mapping(labels, "links"), LINK_FIGURES))
    found |= {f"pair precision {name}": value for name, value in _mapping(row, "pairs").items()}
    evaluation = _mapping(row, "evaluation")
    found |= {"rank-1": evaluation.get("rank1"), "mAP": evaluation.get("mAP")}
    found["learning rate"] = row.get("learning_rate")
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _by_kind(values: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name in values:
        of_name = _mapping(values, name)
        yield from ((f"{title} {name}", of_name.get(kind)) for kind, title in kinds.items())


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def figures_of(record: Record) -> dict[str, dict[str, float]]:
    """Fractions by protocol and by name: ``rank-1``, ..., ``mAP``, ``mINP``."""
    return {
        protocol: {figure_header(name): float(getattr(figures, name)) for name in FIGURE_NAMES}
        for protocol, figures in record.protocols.items()
    }


class Observed:
    """A run and those who observe it."""

    def __init__(self, plan: Plan, folder: Path, *, warned: Callable[[str], None]) -> None:
        self._run = _observed_run(plan, folder.absolute() / "observers")
        self._observers = Observers(plan.observers, log=folder / "observers" / "output.txt", warned=warned)

    def started(self, epochs_done: int) -> None:
        """The run begins, or goes on after ``epochs_done`` epochs."""
        self._run = replace(self._run, epochs_done=epochs_done)
        self._observers.tell("harness_run_started", run=self._run)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch has ended; ``row`` is its line of metrics.jsonl."""
        ended = ObservedEpoch(epoch=int(row["epoch"]) + 1, stage=str(row["stage"]), figures=epoch_figures(row))
        self._observers.tell("harness_epoch_ended", run=self._run, epoch=ended)

    def settle(self) -> None:
        """Wait until what observers complain of is known, so that the record can say it."""
        self._observers.settle()

    def finished(self, record: Record) -> None:
        """The run has its record."""
        result = ObservedResult(figures_of(record), dict(record.cost.seconds), tuple(record.warnings))
        self._observers.tell("harness_run_finished", run=self._run, result=result)
        self._observers.close()

    def failed(self, error: BaseException, *, epochs_done: int, stopped: bool) -> None:
        """The run ends without a record."""
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        failure = ObservedFailure(said, epochs_done, stopped)
        self._observers.tell("harness_run_failed", run=self._run, failure=failure)
        self._observers.close()


def _observed_run(plan: Plan, folder: Path) -> ObservedRun:
    settings = plan.settings
    return ObservedRun(
        name=str(settings.name),
        method=",".join(settings.plugins),
        dataset=settings.dataset,
        seed=settings.seed,
        epochs=plan.recipe.epochs,
        epochs_done=0,
        folder=folder,
        parts=tuple((part.provider.role, part.name) for part in plan.selection.parts),
        settings=dict(_single_values(_without_places(settings))),
    )


def _without_places(settings: Settings) -> dict[str, Any]:
    """The settings short of where the images are: from there the way to identities is short."""
    found = settings.model_dump(mode="json", exclude={"data_root", "observers", "name"})
    found["data"] = {key: value for key, value in found["data"].items() if not isinstance(value, str)}
    return found


def _single_values(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | float | bool]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _single_values(value, f"{prefix}{name}.")
        elif isinstance(value, (bool, int, float)) or (isinstance(value, str) and os.sep not in value):
            yield prefix + name, value
