"""From a grid to its cells: every combination planned as an ordinary run before any of them begins.

What is wrong in the grid itself (an unknown plugin, a role that a plugin does not fill, an option that no cell has) is
an error. What does not go together is skipped, with the reason. Cells that come to the same settings are one.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from harness.engine.plan import Plan, plan_run
from harness.errors import PluginError, SettingsError, suggest
from harness.plugins import FALLBACK, Catalogue, Chosen, explain
from harness.providers import ClustererProvider, LabelRefinerProvider, LossProvider, MemoryProvider, Provider
from harness.reading import shortened
from harness.settings import make_settings, merge, to_toml
from harness.sweep.grid import NONE, OWN, ROLES, DatasetChoice, Entry, Grid, Role, is_section, spelt

KINDS: dict[Role, type[Provider]] = {
    "clusterer": ClustererProvider,
    "refiners": LabelRefinerProvider,
    "memory": MemoryProvider,
    "loss": LossProvider,
}
_UNFIT = re.compile(r"[^A-Za-z0-9._+=,-]+")
_FIRST_FIT = re.compile(r"^[^A-Za-z0-9]+")
_LONGEST_NAME = 150  # bytes of a file name: 255, and a log adds to it

Coordinates = dict[str, Any]
"""Where a cell stands: its entry of each axis (``clusterer``, ``seed``, ``tsmem.step2_momentum``, ...)."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. ``digest``: SHA-256 of its settings but the name. ``number``: from 1, in the grid's order."""

    number: int
    name: str
    coordinates: Coordinates
    digest: str
    plan: Plan = field(repr=False, compare=False)

    @property
    def settings(self) -> str:
        """The resolved settings, as TOML: what ``harness run --settings`` takes."""
        return to_toml(self.plan.settings)


@dataclass(frozen=True)
class Skipped:
    """A cell, or all cells that agree in ``coordinates``, and why there is none."""

    coordinates: Coordinates
    reason: str

    def __str__(self) -> str:
        return f"{described(self.coordinates)}: {self.reason}"


@dataclass(frozen=True)
class Planned:
    """The cells of a grid and what was skipped. ``notes``: what the reader of its figures should know."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()


def described(coordinates: Coordinates) -> str:
    """Coordinates in one line."""
    return ", ".join(f"{key} = {value}" for key, value in coordinates.items())


def plan_cells(grid: Grid, catalogue: Catalogue | None = None, *, known: Mapping[str, str] | None = None) -> Planned:
    """All cells of the grid.

    Args:
        grid: what to combine.
        catalogue: the plugins; by default the installed ones.
        known: names by digest, of cells that an earlier grid of the same sweep had: they keep them.

    Raises:
        PluginError, SettingsError: the grid names what is not there, or no cell is left.
    """
    planner = _Planner(grid, Catalogue() if catalogue is None else catalogue)
    planner.require_known()
    found = list(planner.cells())
    planner.require_used_options()
    cells, twins = _distinct(found, dict(known or {}))
    skipped = (*planner.skipped, *twins)
    if not cells:
        first = f" The first: {skipped[0]}" if skipped else ""
        raise SettingsError(f"No cell of the grid can run; {len(skipped)} are skipped.{first}")
    return Planned(cells, skipped, tuple(_notes(cells)))


@dataclass(frozen=True)
class _Draft:
    """A cell before it is named. ``full``: the label that tells its roles apart."""

    label: str
    full: str
    coordinates: Coordinates
    plan: Plan


@dataclass(frozen=True)
class _Combination:
    """Plugins that make a run, what the grid asks of each role, and how both are told apart from others."""

    label: str
    full: str
    plugins: tuple[str, ...]
    coordinates: Coordinates
    wanted: dict[Role, Entry]

    @property
    def choices(self) -> dict[str, Any]:
        """Settings that choose between plugins that bring the same."""
        return {role: self.wanted[role][0] for role in ("clusterer", "memory") if role in self.wanted}


class _Planner:
    def __init__(self, grid: Grid, catalogue: Catalogue) -> None:
        self.grid, self.catalogue = grid, catalogue
        self.skipped: list[Skipped] = []
        self.used: set[str] = set()
        self.parts: set[str] = set()

    def require_known(self) -> None:
        """Raise PluginError or SettingsError for a plugin that is not there, or does not fill its role."""
        for role, entries in self.grid.roles.items():
            for name in dict.fromkeys(itertools.chain(*entries)):
                if name not in (NONE, OWN) and not self.catalogue.require(name).offers(KINDS[role]):
                    raise SettingsError(
                        f"{ROLES[role]} names {name!r}, which offers no {KINDS[role].role} but: "
                        f"{', '.join(self.catalogue[name].roles)}. {self._offering(role)}"
                    )
        for name in itertools.chain(*self.grid.plugins, [self.grid.recipe] if self.grid.recipe else []):
            self.catalogue.require(name)
        for exclusion in self.grid.exclude:
            self._require_coordinates(exclusion.where)

    def _offering(self, role: Role) -> str:
        names = [name for name in self.catalogue if self.catalogue[name].offers(KINDS[role])]
        return f"Plugins with a {KINDS[role].role}: {', '.join(names)}."

    def _require_coordinates(self, where: Mapping[str, Sequence[Any]]) -> None:
        grid = self.grid
        axes: dict[str, list[Any]] = {role: list(map(spelt, entries)) for role, entries in grid.roles.items()}
        axes |= {"plugins": [",".join(entry) for entry in grid.plugins], "dataset": [d.name for d in grid.datasets]}
        axes |= {"trial": list(grid.trials), "seed": list(grid.seeds), **{k: list(v) for k, v in grid.options.items()}}
        for key, values in where.items():
            if key not in axes:
                raise SettingsError(f"An exclusion names {key!r}, no axis of the grid. {suggest(key, axes)}")
            for value in values:
                if value not in axes[key]:
                    near = suggest(str(value), map(str, axes[key]))
                    raise SettingsError(f"An exclusion names {key} = {value!r}, which the grid does not list. {near}")

    def cells(self) -> Iterator[_Draft]:
        """Every cell that can run; the others go to ``skipped``."""
        for combination, dataset in itertools.product(self._combinations(), self.grid.datasets):
            where = {**combination.coordinates, "dataset": dataset.name}
            values = self._values(combination, dataset)
            plan = None if self._excluded(where) else self._planned(where, values)
            if plan is None:
                continue
            problem = self._beside_the_roles(combination, plan)
            if problem:
                self.skipped.append(Skipped(where, problem))
                continue
            yield from self._variants(combination, where, values, plan)

    def _combinations(self) -> Iterator[_Combination]:
        for wanted in self.grid.combinations():
            full = "+".join(f"{role}={spelt(entry)}" for role, entry in wanted.items())
            coordinates = {str(role): spelt(entry) for role, entry in wanted.items()}
            yield _Combination(_short_label(wanted), full, self._plugins(wanted), coordinates, wanted)
        for names in self.grid.plugins:
            label = "+".join(names)
            yield _Combination(label, f"plugins={label}", names, {"plugins": ",".join(names)}, {})

    def _plugins(self, wanted: Mapping[Role, Entry]) -> tuple[str, ...]:
        """What ``--plugins`` names: the baseline only where its losses stand beside others, or nothing else does."""
        losses = [name for name in wanted.get("loss", ()) if name != OWN]
        others = [name for role, entry in wanted.items() if role != "loss" for name in entry]
        others = [name for name in others if name not in (NONE, FALLBACK)]
        brought = [name for name in others if self.catalogue[name].offers(LossProvider)]
        with_own = OWN in wanted.get("loss", ()) and losses and not brought
        named = [*others, *([FALLBACK] if with_own else []), *losses]
        alone = set(losses) <= {FALLBACK} and not brought
        return tuple(dict.fromkeys(name for name in named if name != FALLBACK or not alone)) or (FALLBACK,)

    def _values(self, combination: _Combination, dataset: DatasetChoice) -> dict[str, Any]:
        values: dict[str, Any] = {
            "plugins": combination.plugins,
            "dataset": dataset.name,
            "seed": self.grid.seeds[0],
            **combination.choices,
        }
        values |= {"data_root": dataset.root} if dataset.root else {}
        values |= {"recipe_of": self.grid.recipe} if self.grid.recipe else {}
        return merge(self.grid.settings, values)

    def _planned(self, where: Coordinates, values: Mapping[str, Any]) -> Plan | None:
        """The run of these settings; None, noted as skipped, if its parts do not go together."""
        try:
            return plan_run(make_settings(values), self.catalogue)
        except (PluginError, SettingsError) as error:
            self.skipped.append(Skipped(where, str(error)))
            return None

    def _excluded(self, where: Coordinates) -> bool:
        """Whether the grid leaves out all cells of ``where``; noted as skipped, once."""
        for exclusion in self.grid.exclude:
            if exclusion.covers(where):
                skipped = Skipped({key: where[key] for key in exclusion.where}, exclusion.reason)
                if skipped not in self.skipped:
                    self.skipped.append(skipped)
                return True
        return False

    def _beside_the_roles(self, combination: _Combination, plan: Plan) -> str | None:
        """What the run has in a listed role that the cell does not name: plugins bring several parts."""
        selection = plan.selection
        running = {"refiners": selection.refiners, "loss": selection.losses}
        for role, parts in running.items():
            entry = combination.wanted.get(role)  # type: ignore[call-overload]
            if entry is None or OWN in entry:
                continue
            named = [
                part.name
                for name in entry
                if name != NONE
                for part in self.catalogue[name].offers(KINDS[role])  # type: ignore[index]
            ]
            for part in parts:
                if part.name not in named:
                    return _uninvited(part, role, combination)
            if role == "refiners" and [part.name for part in parts] != list(dict.fromkeys(named)):
                order = ", ".join(part.name for part in parts)
                return f"the refiners would run in the order {order}, as other plugins of the cell bring some of them"
        return None

    def _variants(
        self, combination: _Combination, where: Coordinates, values: Mapping[str, Any], plan: Plan
    ) -> Iterator[_Draft]:
        """The cells of a combination on a dataset: over trials, options of parts that it has, and seeds."""
        self.parts |= {part.name for part in plan.selection.parts}
        axes = {key: choices for key, choices in self.grid.options.items() if self._applies(key, choices, plan)}
        trials = self.grid.trials if self._has_trials(plan) else ()
        prefix = f"{where['dataset']}-" if len(self.grid.datasets) > 1 else ""
        for trial, *chosen in itertools.product(trials or (None,), *axes.values()):
            options = dict(zip(axes, chosen, strict=True))
            at = {**where, **({} if trial is None else {"trial": trial}), **options}
            suffixes = [_suffix(key, value) for key, value in options.items() if len(axes[key]) > 1]
            suffixes += [] if trial is None else [f"-t{trial}"]
            for seed in self.grid.seeds:
                full = {**at, "seed": seed}
                changed = merge(values, _nested(options), {"seed": seed}, {"data": {"trial": trial}} if trial else {})
                if not self._excluded(full) and (found := self._planned(full, changed)):
                    ends = "".join([*suffixes, f"-s{seed}"])
                    label, in_full = (f"{prefix}{name}{ends}" for name in (combination.label, combination.full))
                    yield _Draft(label, in_full, full, found)

    def _has_trials(self, plan: Plan) -> bool:
        has = "trial" in plan.dataset.provider.options.model_fields
        self.used |= {"trials"} if has else set()
        return has

    def _applies(self, key: str, choices: Iterable[Any], plan: Plan) -> bool:
        """Whether the run has the part that an option is of. Raises SettingsError if the part has no such option."""
        owner, _, option = key.partition(".")
        parts: dict[str, Chosen] = {part.name: part for part in plan.selection.parts}
        if is_section(key):
            section = {"data": plan.dataset, "model": plan.backbone}.get(owner)
            applies = section is None or option == "backbone" or option in section.provider.options.model_fields
        else:
            applies = owner in parts
            if applies:
                _require_option(parts[owner], option, choices, dataset=plan.settings.dataset)
        self.used |= {key} if applies else set()
        return applies

    def require_used_options(self) -> None:
        """Raise SettingsError for an axis that no cell has."""
        if not self.parts:  # every combination is skipped: the reason says more
            return
        if self.grid.trials and "trials" not in self.used:
            raise SettingsError("The grid lists trials, but none of its datasets has any: RegDB does.")
        for key in self.grid.options:
            if key not in self.used:
                owner = key.partition(".")[0]
                near = "" if is_section(key) else f" {suggest(owner, self.parts)}"
                raise SettingsError(f"No cell of the grid has what {key!r} is an option of.{near}")


def _short_label(wanted: Mapping[Role, Entry]) -> str:
    """The plugins that are not the baseline, as ``chc+pgm+tsmem``."""
    named = [name for entry in wanted.values() for name in entry if name not in (NONE, OWN, FALLBACK)]
    return "+".join(dict.fromkeys(named)) or FALLBACK


def _uninvited(part: Chosen, role: str, combination: _Combination) -> str:
    owner = part.plugin.name
    others = [other for other, entry in combination.wanted.items() if owner in entry and other != role]
    named = f", named as {others[0]}," if others else ""
    entry = combination.coordinates[role]
    return f"{owner}{named} brings the {part.provider.role} {part.name} too; this cell has {role} = {entry}"


def _require_option(part: Chosen, option: str, choices: Iterable[Any], *, dataset: str) -> None:
    provider = part.provider
    if option not in provider.options.model_fields:
        raise SettingsError(
            f"The {provider.role} {part.name!r} has no option {option!r}. "
            f"{suggest(option, provider.options.model_fields)} `harness plugins {part.plugin.name}` explains them."
        )
    for value in choices:
        try:
            provider.resolve_options(dataset, {option: value})
        except ValidationError as error:
            raise SettingsError(f"{part.name}: {explain(error)}") from error


def _suffix(key: str, value: Any) -> str:
    name = key if is_section(key) else key.partition(".")[2]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "-" + _UNFIT.sub("_", f"{name}={text}")


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """``a.b`` as the settings have it: sections at the top, parts under ``options``."""
    values: dict[str, Any] = {}
    for key, value in options.items():
        owner, _, option = key.partition(".")
        inner = {owner: {option: value}}
        values = merge(values, inner if is_section(key) else {"options": inner})
    return values


def _distinct(drafts: Iterable[_Draft], known: Mapping[str, str]) -> tuple[tuple[Cell, ...], list[Skipped]]:
    """Cells with names of their own; those of equal settings as one, the rest skipped (all their seeds at once)."""
    found: dict[str, _Draft] = {}
    twins: dict[str, tuple[Coordinates, str]] = {}
    for draft in drafts:
        digest = settings_digest(draft.plan)
        if found.setdefault(digest, draft) is not draft:
            but_seed = {key: value for key, value in draft.coordinates.items() if key != "seed"}
            twins.setdefault(described(but_seed), (but_seed, digest))
    names = _names(found, known)
    cells = tuple(
        Cell(number, names[digest], draft.coordinates, digest, _under(names[digest], draft.plan))
        for number, (digest, draft) in enumerate(found.items(), start=1)
    )
    return cells, [Skipped(at, f"the same run as {names[digest]}") for at, digest in twins.values()]


def _names(drafts: Mapping[str, _Draft], known: Mapping[str, str]) -> dict[str, str]:
    """Names by digest: those that are known, else the label if it is free and no other cell has it, else the full one.

    A name is never used for other settings, whether or not this grid has the cell that was called so.
    """
    labels = Counter(draft.label for draft in drafts.values())
    taken = {**{name: digest for digest, name in known.items()}}
    names = {}
    for digest, draft in drafts.items():
        label = draft.label if labels[draft.label] == 1 else draft.full
        name = known.get(digest) or _fit(label, digest)
        if taken.setdefault(name, digest) != digest:
            name = f"{name}-{digest[:8]}"
            taken[name] = digest
        names[digest] = name
    return names


def _fit(label: str, digest: str) -> str:
    name = _FIRST_FIT.sub("", _UNFIT.sub("_", label))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{digest[:8]}"


def _under(name: str, plan: Plan) -> Plan:
    """The same run under a name."""
    settings = plan.settings.model_copy(update={"name": name})
    return Plan(settings, plan.selection, plan.recipe, plan.backbone, plan.dataset)


def settings_digest(plan: Plan) -> str:
    """SHA-256 of a run's resolved settings, in hexadecimal, free of its name."""
    return hashlib.sha256(to_toml(plan.settings.model_copy(update={"name": None})).encode()).hexdigest()


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    recipes = Counter(str(cell.plan.settings.recipe_of) for cell in cells)
    if len(recipes) > 1:
        told = ", ".join(f"{name} {count}" for name, count in sorted(recipes.items()))
        yield (
            f"the cells train by {len(recipes)} recipes ({shortened(told)}), so that a difference may be a recipe's; "
            "recipe = NAME in the grid trains all by one."
        )
