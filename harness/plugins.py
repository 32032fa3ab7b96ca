"""Finding plugins by their entry points, and choosing the parts of a run among what they offer.

Each entry point of the group ``harness.plugins`` is loaded on its own, into a plugin manager of its own: a plugin that
cannot be loaded is listed with the reason and hurts nobody else, and a plugin that was not named runs no hook in a run.
Choice is by name, never by the order of registration.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType, ModuleType
from typing import Any

import pluggy
from pydantic import ValidationError

from harness import hookspecs
from harness.errors import HarnessError, PluginError, SettingsError, suggest
from harness.providers import (
    HOOK_API_VERSION,
    PROVIDER_TYPES,
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Options,
    PluginCard,
    Provider,
)
from harness.reading import printable, shortened
from harness.recipe import Recipe

GROUP = "harness.plugins"
FALLBACK = "baseline"
"""The plugin that fills the slots no named plugin fills."""

HEAVY = ("torch", "torchvision", "faiss", "scipy", "sklearn", "pandas", "numba", "lightning_fabric", "matplotlib")
"""Libraries that a plugin must not load when it is imported, so that ``harness --help`` stays quick."""

PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

SECTIONS = ("model", "data", "recipe", "features", "clustering", "evaluation", "compute")
"""Sections of the settings: ``--set SECTION.field=...`` would never reach a part of that name."""

OBSERVER_HOOKS = (
    "harness_run_started",
    "harness_epoch_ended",
    "harness_run_finished",
    "harness_run_failed",
    "harness_report_sections",
)

_PROVIDER_HOOKS = (
    "harness_clusterers",
    "harness_label_refiners",
    "harness_memories",
    "harness_losses",
    "harness_image_transforms",
    "harness_backbones",
    "harness_datasets",
)


@dataclass(frozen=True)
class Plugin:
    """One entry point, loaded: what it offers, or why it could not be loaded (``problem``).

    ``deprecations``: what the specifications say of those of its hooks and arguments that a later API will not have.
    ``target``: where the plugin object is found again, ``"module:name"``. ``observes``: whether it has a hook of
    :data:`OBSERVER_HOOKS`; ``observe(hook, **values)`` calls one.
    """

    name: str
    distribution: str
    version: str
    card: PluginCard | None = None
    providers: tuple[Provider, ...] = ()
    recipe: Callable[[str], Recipe | None] = lambda dataset: None
    has_recipe: bool = False
    problem: str | None = None
    deprecations: tuple[str, ...] = ()
    target: str = ""
    observes: bool = False
    observe: Callable[..., list[Any]] = lambda hook, **values: []

    def offers(self, kind: type[Provider]) -> tuple[Provider, ...]:
        """The providers of one type, in the order yielded."""
        return tuple(provider for provider in self.providers if type(provider) is kind)

    @property
    def roles(self) -> tuple[str, ...]:
        """The distinct roles it offers parts for, in the order of the pipeline."""
        return tuple(kind.role for kind in PROVIDER_TYPES if self.offers(kind))


def load(name: str, target: Any, *, distribution: str = "", version: str = "") -> Plugin:
    """Register one plugin object and ask it what it offers. A fault becomes ``problem``; nothing is raised."""
    try:
        return _load(name, target, distribution=distribution, version=version)
    except Exception as error:
        return Plugin(name, distribution, version, problem=f"{type(error).__name__}: {error}")


def _load(name: str, target: Any, *, distribution: str, version: str) -> Plugin:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.register(target, name=name)
    card = _card(manager)
    deprecations = _check_hooks(manager)
    if card is None:
        raise PluginError("the hook harness_plugin is missing or does not return a PluginCard.")
    providers = tuple(_collect(manager))
    twice = {p.name for p in providers if sum(q.name == p.name and type(q) is type(p) for q in providers) > 1}
    if twice:
        raise PluginError(f"offers two parts of one role under the name {sorted(twice)[0]!r}.")

    def recipe(dataset: str) -> Recipe | None:
        found = manager.hook.harness_recipe(dataset=dataset)
        return found[0] if found else None

    return Plugin(
        name,
        distribution,
        version,
        card=card,
        providers=providers,
        recipe=recipe,
        has_recipe=bool(manager.hook.harness_recipe.get_hookimpls()),
        deprecations=deprecations,
        target=_place_of(target),
        observes=any(getattr(manager.hook, hook).get_hookimpls() for hook in OBSERVER_HOOKS),
        observe=lambda hook, **values: getattr(manager.hook, hook)(**values),
    )


def _place_of(target: Any) -> str:
    """``"module:name"`` of a plugin object; empty for one that no import finds again."""
    if isinstance(target, ModuleType):
        return target.__name__
    return f"{target.__module__}:{target.__qualname__}" if isinstance(target, type) else ""


def _card(manager: pluggy.PluginManager) -> PluginCard | None:
    """The plugin's card, asked for before its hooks are checked: those of another API may well be unknown here."""
    try:
        cards = manager.hook.harness_plugin() if hasattr(manager.hook, "harness_plugin") else []
    except pluggy.HookCallError:
        return None  # it wants arguments: the comparison with the specification says so better
    if not cards or not isinstance(cards[0], PluginCard):
        return None
    if cards[0].api != HOOK_API_VERSION:
        raise PluginError(
            f"made for hook API {cards[0].api}; this harness speaks {HOOK_API_VERSION}. Install a version of the "
            "plugin made for this harness, or the harness that the plugin was made for."
        )
    return cards[0]


def _check_hooks(manager: pluggy.PluginManager) -> tuple[str, ...]:
    """Compare names and arguments with the specifications; what deprecated ones say (their ``warn_on_impl``)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        manager.add_hookspecs(hookspecs)
    manager.check_pending()
    return tuple(dict.fromkeys(str(warning.message) for warning in said))


def _collect(manager: pluggy.PluginManager) -> Iterator[Provider]:
    for hook, kind in zip(_PROVIDER_HOOKS, PROVIDER_TYPES, strict=True):
        for offered in getattr(manager.hook, hook)():
            for provider in offered:
                if type(provider) is not kind:
                    raise PluginError(f"{hook} yields {kind.__name__} values; got {type(provider).__name__}.")
                yield provider


class Catalogue(Mapping[str, Plugin]):
    """The installed plugins by name, loaded one by one on first request."""

    def __init__(self, points: Iterable[EntryPoint] | None = None, *, extra: Mapping[str, Any] | None = None) -> None:
        found = entry_points(group=GROUP) if points is None else points
        self._points: dict[str, list[EntryPoint]] = {}
        for point in found:
            self._points.setdefault(point.name, []).append(point)
        self._extra = dict(extra or {})
        self._loaded: dict[str, Plugin] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._points, *self._extra}))

    def __len__(self) -> int:
        return len({*self._points, *self._extra})

    def __getitem__(self, name: str) -> Plugin:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Plugin:
        if name in self._extra:
            return load(name, self._extra[name])
        points = self._points[name]
        owners = {_owner(point) for point in points}
        distribution, version = _owner(points[0])
        if len(owners) > 1:
            clash = " and ".join(sorted(owner for owner, _ in owners))
            return Plugin(name, distribution, version, problem=f"two distributions claim this name: {clash}.")
        before = set(sys.modules)
        try:
            target = points[0].load()
        except (Exception, SystemExit) as error:
            return Plugin(name, distribution, version, problem=f"cannot be imported: {type(error).__name__}: {error}")
        heavy = heavy_imports(points[0].module, set(sys.modules) - before)
        plugin = load(name, target, distribution=distribution, version=version)
        problem = plugin.problem or heavy or _unfit_names(plugin) or self._taken_name(plugin)
        return replace(plugin, problem=problem)

    def _taken_name(self, plugin: Plugin) -> str | None:
        """Why a plugin from elsewhere cannot be used: it calls a part as the harness's own plugins call another."""
        home = [name for name in self._points if self._is_at_home(name)]
        if plugin.name in home:
            return None
        ours = {(part.name, part.factory): name for name in home for part in self[name].providers}
        taken = {part: owner for (part, _), owner in ours.items()}
        for provider in plugin.providers:
            if provider.name in taken and (provider.name, provider.factory) not in ours:
                return (
                    f"calls its {provider.role} {provider.name!r}, which is what the in-tree plugin "
                    f"{taken[provider.name]!r} calls a part of its own. Rename the part."
                )
        return None

    def _is_at_home(self, name: str) -> bool:
        """Whether a plugin comes with the harness: in the distribution that the baseline is of."""
        owners = {_owner(point) for point in self._points[name]}
        return owners == {_owner(point) for point in self._points.get(FALLBACK, ())} != {("", "")}

    def require(self, name: str) -> Plugin:
        """The plugin ``name``. Raises PluginError if it is unknown (suggesting near names) or could not be loaded."""
        if name not in self._points and name not in self._extra:
            raise PluginError(f"There is no plugin {name!r}. {suggest(name, self)} `harness plugins` lists them all.")
        plugin = self[name]
        if plugin.problem:
            raise PluginError(f"The plugin {name!r} ({plugin.distribution or 'unknown distribution'}) {plugin.problem}")
        return plugin


def heavy_imports(module: str, loaded: set[str]) -> str | None:
    """What a plugin's entry module loads that it should not: among modules ``loaded`` with it, or in its namespace."""
    values = vars(sys.modules[module]).values() if module in sys.modules else ()
    tops = {name.partition(".")[0] for name in (*loaded, *map(_origin, values))}
    found = [name for name in HEAVY if name in tops]
    if not found:
        return None
    return (
        f"loads {', '.join(found)} when it is imported, which would slow every command down. Name factories as "
        "'module:attribute', and import heavy libraries in those modules only."
    )


def _origin(value: object) -> str:
    """The module that a value is, or that its definition or its type stands in."""
    if isinstance(value, ModuleType):
        return value.__name__
    return str(value.__module__ if isinstance(value, (type, FunctionType)) else type(value).__module__)


def _unfit_names(plugin: Plugin) -> str | None:
    """Why a part or an option cannot be named in settings, if so."""
    for provider in plugin.providers:
        if not PART_NAME.fullmatch(provider.name):
            return f"calls a part {provider.name!r}: use letters, digits, _ and -, so that --set can name it."
        if provider.name in SECTIONS:
            return (
                f"calls a part {provider.name!r}, a section of the core's settings: its options would shadow the "
                "core's. Rename the part."
            )
        shadowing = sorted(set(provider.options.model_fields) & set(dir(Options)))
        if shadowing:
            return f"has an option {provider.name}.{shadowing[0]}, a name that every Options class has already."
    return None


def _owner(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("", "")


@dataclass(frozen=True)
class Chosen:
    """A part in use: who provides it and with which options."""

    provider: Provider
    plugin: Plugin
    options: Options

    @property
    def name(self) -> str:
        """The part's name, the key of its options in settings."""
        return self.provider.name

    def make(self, *arguments: Any) -> Any:
        """Import the factory and call it with the options. Raises PluginError naming the plugin if that fails."""
        try:
            return self.provider.load()(self.options, *arguments)
        except HarnessError:
            raise
        except Exception as error:
            raise PluginError(
                f"The {self.provider.role} {self.name!r} of plugin {self.plugin.name!r} could not be made from "
                f"{self.provider.factory!r}: {type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class Selection:
    """The parts of a run, resolved."""

    clusterer: Chosen
    refiners: tuple[Chosen, ...]
    memory: Chosen
    losses: tuple[Chosen, ...]
    transforms: tuple[Chosen, ...]
    recipe: Recipe
    recipe_plugin: Plugin
    notes: tuple[str, ...] = field(default=())

    @property
    def parts(self) -> tuple[Chosen, ...]:
        """All parts in the order in which data meets them."""
        return (*self.transforms, self.clusterer, *self.refiners, self.memory, *self.losses)


def select(
    catalogue: Catalogue,
    names: Sequence[str],
    *,
    dataset: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    clusterer: str | None = None,
    memory: str | None = None,
    recipe: str | None = None,
) -> Selection:
    """Choose the parts of a run among the named plugins; the baseline fills what they leave open.

    One clusterer and one memory: a named *part* takes the slot from a method that brings its own; otherwise two of a
    kind raise PluginError, and ``clusterer`` / ``memory`` (a plugin's or a part's name) choose. Refiners, losses and
    image transforms: all, in the order named. The recipe: the first named plugin's that has one, or ``recipe``'s.

    Raises PluginError (unknown or broken plugin, conflict) or SettingsError (unknown or ill-typed option).
    """
    named = [catalogue.require(name) for name in dict.fromkeys(names or [FALLBACK])]
    chosen_options = dict(options or {})
    notes = [f"{plugin.name}: {said}" for plugin in named for said in plugin.deprecations]
    fallback = catalogue.require(FALLBACK)
    chooser = _Chooser(named, fallback, dataset, chosen_options, notes)
    chosen_recipe, recipe_plugin = _recipe(named, fallback, catalogue, dataset, recipe)
    selection = Selection(
        clusterer=chooser.one(ClustererProvider, clusterer),
        refiners=chooser.many(LabelRefinerProvider),
        memory=chooser.one(MemoryProvider, memory),
        losses=chooser.many(LossProvider) or chooser.fallback_many(LossProvider),
        transforms=chooser.many(ImageTransformProvider),
        recipe=chosen_recipe,
        recipe_plugin=recipe_plugin,
        notes=tuple(notes),
    )
    _require_distinct(selection.parts)
    known = {part.name for part in selection.parts}
    for name in chosen_options:
        if name not in known:
            raise SettingsError(f"No part named {name!r} is used in this run. {suggest(name, known)}")
    return selection


def _recipe(
    named: Sequence[Plugin], fallback: Plugin, catalogue: Catalogue, dataset: str, wanted: str | None
) -> tuple[Recipe, Plugin]:
    candidates = [catalogue.require(wanted)] if wanted else [*named, fallback]
    for plugin in candidates:
        found = _ask_recipe(plugin, dataset) if plugin.has_recipe else None
        if found is not None:
            return found, plugin
    raise PluginError(f"The plugin {candidates[0].name!r} has no recipe for the dataset {dataset!r}.")


def _ask_recipe(plugin: Plugin, dataset: str) -> Recipe | None:
    try:
        found = plugin.recipe(dataset)
    except Exception as error:
        raise PluginError(
            f"The hook harness_recipe of plugin {plugin.name!r} failed for {dataset!r}: {type(error).__name__}: {error}"
        ) from error
    if found is not None and not isinstance(found, Recipe):
        raise PluginError(
            f"The hook harness_recipe of plugin {plugin.name!r} must return a harness.Recipe, or None; got "
            f"{type(found).__name__}."
        )
    return found


def _require_distinct(parts: Sequence[Chosen]) -> None:
    """Options, random streams and saved state are kept by part name, so a name stands for one part only."""
    owner: dict[str, Chosen] = {}
    for part in parts:
        first = owner.setdefault(part.name, part)
        if first is not part:
            raise PluginError(
                f"Two parts of this run are called {part.name!r}: the {first.provider.role} of plugin "
                f"{first.plugin.name!r} and the {part.provider.role} of plugin {part.plugin.name!r}. Name only one of "
                "these plugins, or rename a part."
            )


@dataclass
class _Chooser:
    named: Sequence[Plugin]
    fallback: Plugin
    dataset: str
    options: Mapping[str, Mapping[str, Any]]
    notes: list[str]

    def many(self, kind: type[Provider]) -> tuple[Chosen, ...]:
        found: dict[tuple[str, str], Chosen] = {}
        for plugin in self.named:
            for provider in plugin.offers(kind):
                found.setdefault((provider.name, provider.factory), self.choose(plugin, provider))
        return tuple(found.values())

    def fallback_many(self, kind: type[Provider]) -> tuple[Chosen, ...]:
        return tuple(self.choose(self.fallback, provider) for provider in self.fallback.offers(kind))

    def one(self, kind: type[Provider], wanted: str | None) -> Chosen:
        offers = {(p.name, p.factory): (plugin, p) for plugin in reversed(self.named) for p in plugin.offers(kind)}
        candidates = list(reversed(offers.values()))
        if wanted is not None:
            candidates = self._wanted(kind, candidates, wanted)
        if not candidates:
            candidates = [(self.fallback, provider) for provider in self.fallback.offers(kind)]
        if len(candidates) > 1:
            candidates = self._parts_first(kind, candidates)
        if len(candidates) > 1:
            both = " and ".join(f"{plugin.name!r} ({provider.name})" for plugin, provider in candidates)
            flag = f"--{kind.role}"
            raise PluginError(
                f"A run has one {kind.role}, and {both} each provide one. Choose with {flag} "
                f"{candidates[0][0].name} or {flag} {candidates[-1][0].name}, or name only one of them."
            )
        return self.choose(*candidates[0])

    def _wanted(
        self, kind: type[Provider], candidates: list[tuple[Plugin, Provider]], wanted: str
    ) -> list[tuple[Plugin, Provider]]:
        pool = candidates + [(self.fallback, p) for p in self.fallback.offers(kind)]
        found = [(plugin, p) for plugin, p in pool if wanted in (plugin.name, p.name)]
        if not found:
            names = {plugin.name for plugin, _ in pool} | {p.name for _, p in pool}
            raise PluginError(f"No named plugin provides a {kind.role} {wanted!r}. {suggest(wanted, names)}")
        return found[:1]

    def _parts_first(
        self, kind: type[Provider], candidates: list[tuple[Plugin, Provider]]
    ) -> list[tuple[Plugin, Provider]]:
        parts = [pair for pair in candidates if pair[0].card and pair[0].card.kind == "part"]
        if len(parts) != 1:
            return candidates
        replaced = ", ".join(plugin.name for plugin, _ in candidates if plugin is not parts[0][0])
        self.notes.append(f"{kind.role}: {parts[0][1].name} takes the place of the one that {replaced} brings.")
        return parts

    def choose(self, plugin: Plugin, provider: Provider) -> Chosen:
        given = self.options.get(provider.name, {})
        for option in given:
            if option not in provider.options.model_fields:
                raise SettingsError(
                    f"The {provider.role} {provider.name!r} has no option {option!r}. "
                    f"{suggest(option, provider.options.model_fields)} `harness plugins {plugin.name}` explains them."
                )
        try:
            return Chosen(provider, plugin, provider.resolve_options(self.dataset, given))
        except ValidationError as error:
            raise SettingsError(f"{provider.name}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Pydantic's complaints as one sentence each: where, what was expected, what was given."""
    return " ".join(
        f"{shortened(printable('.'.join(map(str, item['loc'])))) or 'value'}: {item['msg']} "
        f"(got {shortened(printable(repr(item['input'])))})."
        for item in error.errors()
    )
