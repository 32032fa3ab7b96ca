"""What a check is given: a plugin, one of its parts, and what the part can be tried on and beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.errors import HarnessError
from harness.plugins import FALLBACK, Catalogue, Chosen, Plugin
from harness.providers import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Provider,
)
from harness.testing.cases import DATASET, ToySet
from harness.testing.driving import DRIVERS, Driven
from harness.testing.plain import PlainClusterer, PlainLoss, PlainMemory

PLAIN = Plugin("plain", "", "")
_HERE = "harness.testing.plain"
PLAIN_CLUSTERER = ClustererProvider("plain-clusterer", f"{_HERE}:{PlainClusterer.__name__}", "By row.")
PLAIN_MEMORY = MemoryProvider("plain-memory", f"{_HERE}:{PlainMemory.__name__}", "Means.")
PLAIN_LOSS = LossProvider("plain-loss", f"{_HERE}:{PlainLoss.__name__}", "Contrast.")


class CheckFailed(HarnessError):
    """A plugin does not do what the conformance kit expects."""


class NotTried(Exception):
    """A check that says nothing about this part, with the reason."""


@dataclass(frozen=True)
class Team:
    """The parts of one tiny run."""

    clusterer: Chosen
    refiners: tuple[Chosen, ...]
    memory: Chosen
    losses: tuple[Chosen, ...]
    transforms: tuple[Chosen, ...] = ()

    def __str__(self) -> str:
        parts = (*self.transforms, self.clusterer, *self.refiners, self.memory, *self.losses)
        return ", ".join(part.name for part in parts)


@dataclass(frozen=True)
class Subject:
    """A plugin, and the part that is looked at (None: the plugin itself). ``module``: where the plugin object lives."""

    plugin: Plugin
    provider: Provider | None
    catalogue: Catalogue
    module: str
    full: bool = False

    @property
    def part(self) -> Provider:
        """The part. Raises TypeError for a check that looks at the plugin itself."""
        if self.provider is None:
            raise TypeError("this check looks at a plugin, not at a part")
        return self.provider

    @property
    def chosen(self) -> Chosen:
        """The part with its options for a small dataset."""
        return _chosen(self.plugin, self.part)

    def on(self, toys: ToySet, *, guarded: bool = False) -> Driven:
        """The part, newly made, on a toy set."""
        return DRIVERS[self.part.role](self.chosen, toys, guarded=guarded)

    def make(self, *arguments: Any) -> Any:
        """The part, newly made from other arguments than a role's."""
        return self.chosen.make(*arguments)

    def team(self) -> Team:
        """The part among plain ones."""
        return self._with_subject(Team(_plain(PLAIN_CLUSTERER), (), _plain(PLAIN_MEMORY), (_plain(PLAIN_LOSS),)))

    def teams(self) -> Iterator[Team]:
        """Teams in which the part meets every in-tree part of the other roles, at least once; ``full``: all teams.

        Losses are summed in a run, so all of them train at once; a loss that is looked at trains alone as well.
        """
        clusterers, refiners, memories, losses = (
            self._others(kind) for kind in (ClustererProvider, LabelRefinerProvider, MemoryProvider, LossProvider)
        )
        chains: list[tuple[Chosen, ...]] = [(), *((refiner,) for refiner in refiners)]
        crews = [(*_unlike(self.part, losses),)]
        if isinstance(self.part, LossProvider):
            crews.append(())
        pools: list[Sequence[Any]] = [clusterers, chains, memories, crews]
        found = product(*pools) if self.full else _in_turn(pools)
        teams = {
            str(team): team for team in (self._with_subject(Team(c, chain, m, crew)) for c, chain, m, crew in found)
        }
        yield from teams.values()

    def _with_subject(self, team: Team) -> Team:
        mine = self.chosen
        values = {
            "clusterer": mine if isinstance(self.part, ClustererProvider) else team.clusterer,
            "refiners": (mine,) if isinstance(self.part, LabelRefinerProvider) else team.refiners,
            "memory": mine if isinstance(self.part, MemoryProvider) else team.memory,
            "losses": (mine, *team.losses) if isinstance(self.part, LossProvider) else team.losses,
            "transforms": (mine,) if isinstance(self.part, ImageTransformProvider) else team.transforms,
        }
        return Team(**values)  # type: ignore[arg-type]

    def _others(self, kind: type[Provider]) -> list[Chosen]:
        """The parts of one role that the harness itself, or this plugin's own distribution, brings; by name."""
        homes = {self.catalogue.require(FALLBACK).distribution, self.plugin.distribution} - {""}
        others = [found for found in self.catalogue.values() if found.problem is None and found.distribution in homes]
        found: dict[str, Chosen] = {}
        for plugin in (self.plugin, *others):
            for provider in plugin.offers(kind):
                found.setdefault(provider.name, _chosen(plugin, provider))
        return list(found.values())


def _chosen(plugin: Plugin, provider: Provider) -> Chosen:
    return Chosen(provider, plugin, provider.resolve_options(DATASET, {}))


def _plain(provider: Provider) -> Chosen:
    return _chosen(PLAIN, provider)


def _unlike(provider: Provider, parts: Sequence[Chosen]) -> list[Chosen]:
    return [part for part in parts if part.name != provider.name]


def _in_turn(pools: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """As many tuples as the longest pool has values, so that every value of every pool is in one of them."""
    for turn in range(max(map(len, pools))):
        yield tuple(pool[turn % len(pool)] for pool in pools)
