"""What observers are told of a run, and what they may add to its report: plain values, and nothing that leads anywhere.

Observers are plugins that follow runs (``--observers NAME``). They run in a process of their own and are told names and
figures only, as the values below: no image, no label of an image, no identity, no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """The run that is observed.

    ``method``: the named plugins; ``parts``: role and name of each part; ``epochs``: how many there will be in all, of
    which ``epochs_done`` were done when the run was begun or resumed. ``settings``: those that have one value, by
    dotted name (``"recipe.learning_rate"``). ``folder``: for what the observer writes; made before it is first told.
    """

    name: str
    method: str
    dataset: str
    seed: int
    epochs: int
    epochs_done: int
    folder: Path
    parts: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, str | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObservedEpoch:
    """An epoch that has ended, counted from 1.

    ``figures`` by name: ``loss NAME``; ``ARI``, ``NMI``, ``clusters``, ``outliers`` and ``mixed clusters`` followed by
    the partition; ``pair precision`` and ``link precision`` followed by what is linked; ``rank-1`` and ``mAP``, if the
    epoch was evaluated; ``learning rate``. Shares and figures of retrieval are fractions.
    """

    epoch: int
    stage: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ObservedResult:
    """How a run ended well: ``figures[PROTOCOL][NAME]`` as fractions, seconds by kind of work, recorded warnings."""

    figures: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedFailure:
    """How a run ended otherwise: stopped on request (``stopped``), or by an error. ``epochs_done`` are kept."""

    error: str
    epochs_done: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A run that is being reported on. ``curves[NAME]``: epoch and value pairs, named as in :class:`ObservedEpoch`.

    ``finished``: whether it has a record; without one, ``figures`` is empty.
    """

    name: str
    method: str
    dataset: str
    seed: int | None
    finished: bool
    folder: Path
    figures: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, tuple[tuple[int, float], ...]]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section that an observer adds to a report: any of a text, a table and a drawing.

    ``text``: plain; an empty line begins a paragraph. ``table``: rows of cells, the first one the headings. ``svg``: a
    drawing, shown as a picture: it runs no script and loads nothing.
    """

    title: str
    text: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    svg: str = ""


def to_plain(value: Any) -> Any:
    """A value of this module as JSON has it."""
    found = asdict(value)
    if "folder" in found:
        found["folder"] = str(found["folder"])
    return found


def from_plain(kind: type, values: Mapping[str, Any]) -> Any:
    """The inverse of :func:`to_plain`: lists become tuples again."""
    found = {name: _frozen(value) for name, value in values.items()}
    if "folder" in found:
        found["folder"] = Path(found["folder"])
    return kind(**found)


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value
