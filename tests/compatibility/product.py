"""Every in-tree clusterer, label refiner (or none), memory and loss: what trains with what, declared and tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.engine.plan import plan_run
from harness.plugins import FALLBACK, Catalogue, Chosen, Plugin, Selection
from harness.providers import ClustererProvider, LabelRefinerProvider, LossProvider, MemoryProvider, Provider
from harness.settings import Settings
from harness.testing.cases import DATASET
from harness.testing.tiny import train_tiny

NONE = "none"
ROLES: dict[str, type[Provider]] = {
    "clusterer": ClustererProvider,
    "label refiner": LabelRefinerProvider,
    "memory": MemoryProvider,
    "loss": LossProvider,
}
Cell = tuple[str, str, str, str]
"""Names of a clusterer, a label refiner (or ``none``), a memory and a loss."""

SMALL: Mapping[str, Mapping[str, Any]] = {"chc": {"k1": 8}, "dnc": {"k1_joint": 8}, "mie": {"k1_joint": 8}}
"""Options with which joint clustering finds several clusters among 48 images of each modality."""


@dataclass(frozen=True)
class Gap:
    """Cells that are not expected to train: the losses need one of these clusterers or label refiners, and say so by
    having no term (the run warns: "no loss had a term")."""

    losses: tuple[str, ...]
    clusterers: tuple[str, ...]
    refiners: tuple[str, ...]
    reason: str

    def holds(self, cell: Cell) -> bool:
        """Whether ``cell`` is one of these."""
        clusterer, refiner, _, loss = cell
        return loss in self.losses and clusterer not in self.clusterers and refiner not in self.refiners


GAPS = (
    Gap(
        losses=("cross-contrast", "modality-contrast"),
        clusterers=("chc",),
        refiners=("brst", "pgm"),
        reason="no term where no visible cluster is linked with an infrared one",
    ),
)


@cache
def catalogue() -> Catalogue:
    """The installed plugins."""
    return Catalogue()


@cache
def plugins() -> tuple[Plugin, ...]:
    """Those that come with the harness."""
    home = catalogue().require(FALLBACK).distribution
    return tuple(found for found in catalogue().values() if found.distribution == home)


@cache
def parts(role: str) -> tuple[str, ...]:
    """The names of the parts of one role; ``none`` is a label refiner."""
    found = {provider.name for plugin in plugins() for provider in plugin.offers(ROLES[role])}
    return ((NONE,) if role == "label refiner" else ()) + tuple(sorted(found))


def cells() -> list[Cell]:
    """The full product."""
    return list(itertools.product(*map(parts, ROLES)))  # type: ignore[arg-type]


def declared(cell: Cell) -> str | None:
    """Why a cell is not expected to train; None if it is."""
    return next((gap.reason for gap in GAPS if gap.holds(cell)), None)


def chosen(role: str, name: str) -> Chosen:
    """A part by name, with its options for a small set."""
    owner = next(plugin for plugin in plugins() if name in [part.name for part in plugin.offers(ROLES[role])])
    provider = next(part for part in owner.offers(ROLES[role]) if part.name == name)
    return Chosen(provider, owner, provider.resolve_options(DATASET, SMALL.get(name, {})))


def tried(cell: Cell) -> str | None:
    """Train a tiny run of exactly these parts; why it trained nothing, or None. Raises what the engine raises."""
    clusterer, refiner, memory, loss = cell
    return _trained(
        clusterer=chosen("clusterer", clusterer),
        refiners=() if refiner == NONE else (chosen("label refiner", refiner),),
        memory=chosen("memory", memory),
        losses=(chosen("loss", loss),),
    )


def _trained(**team: Any) -> str | None:
    _, reports = train_tiny(**team)
    terms = [value for report in reports for value in report.losses.values()]
    if any(not math.isfinite(value) for value in terms):
        return f"a term is not finite: {terms}"
    if any(value > 0 for value in terms):
        return None
    return "; ".join(sorted({report.skipped or report.silent or "every term is 0" for report in reports}))


def covering() -> list[Cell]:
    """Cells that train and together hold every pair of parts of two roles: greedily, the most new pairs first."""
    return list(_covering(tuple(cell for cell in cells() if declared(cell) is None)))


@cache
def _covering(candidates: tuple[Cell, ...]) -> tuple[Cell, ...]:
    pairs = {cell: frozenset(_pairs(cell)) for cell in candidates}
    left = set().union(*pairs.values())
    found = []
    while left:
        best = max(candidates, key=lambda cell: len(pairs[cell] & left))  # the first of equals
        found.append(best)
        left -= pairs[best]
    return tuple(found)


def _pairs(cell: Cell) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    return itertools.combinations(enumerate(cell), 2)


def named(cell: Cell) -> Settings:
    """The settings of ``harness run`` that have these parts: plugins that offer them, and which of several to take."""
    clusterer, refiner, memory, loss = cell
    wanted = [("clusterer", clusterer), ("label refiner", refiner), ("memory", memory), ("loss", loss)]
    names = dict.fromkeys(_smallest(role, name) for role, name in wanted if name != NONE)
    return Settings(
        plugins=tuple(names), clusterer=clusterer, memory=memory, data={"size": "tiny"},
        options={name: dict(options) for name, options in SMALL.items() if name == clusterer},
    )  # fmt: skip


def _smallest(role: str, name: str) -> str:
    """The plugin that offers a part, and the fewest others."""
    owners = [plugin for plugin in plugins() if name in [part.name for part in plugin.offers(ROLES[role])]]
    return min(owners, key=lambda plugin: (len(plugin.providers), plugin.name)).name


def selected(cell: Cell) -> Selection:
    """What ``harness run`` chooses. Raises what it raises."""
    return plan_run(named(cell), catalogue()).selection


def tried_by_name(selection: Selection) -> str | None:
    """Train a tiny run of a selection; why it trained nothing, or None."""
    return _trained(
        clusterer=selection.clusterer,
        refiners=selection.refiners,
        memory=selection.memory,
        losses=selection.losses,
        transforms=[transform.make() for transform in selection.transforms],
    )


def shares(one: str, other: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Of every pair of parts of two roles: how many of its cells train, of how many."""
    places = [*ROLES]
    first, second = places.index(one), places.index(other)
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for cell in cells():
        trains, count = found.get((cell[first], cell[second]), (0, 0))
        found[cell[first], cell[second]] = trains + (declared(cell) is None), count + 1
    return found


def chunks() -> Sequence[tuple[str, str]]:
    """Clusterers with losses, each of which a test tries with all refiners and memories."""
    return list(itertools.product(parts("clusterer"), parts("loss")))
