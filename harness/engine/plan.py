"""From settings to a plan: every choice made, nothing loaded that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.builtin import Core
from harness.errors import PluginError, SettingsError, suggest
from harness.observing import choose_observers
from harness.plugins import Catalogue, Chosen, Plugin, Selection, explain, load, select
from harness.providers import BackboneProvider, DatasetProvider, Provider
from harness.recipe import Recipe
from harness.settings import Settings, apply_recipe, resolve_backbone, resolved

CORE = load("core", Core, distribution="vireid-harness")


@dataclass(frozen=True)
class Plan:
    """A run with every choice made. ``settings`` names every value."""

    settings: Settings
    selection: Selection
    recipe: Recipe
    backbone: Chosen
    dataset: Chosen
    observers: tuple[Plugin, ...] = ()


def plan_run(settings: Settings, catalogue: Catalogue | None = None) -> Plan:
    """Resolve plugins, recipe, options, encoder and dataset. Raises PluginError or SettingsError."""
    catalogue = Catalogue() if catalogue is None else catalogue
    named = [catalogue.require(name) for name in settings.plugins]
    dataset = _choose(DatasetProvider, settings.dataset, [CORE, *named], settings.data, dataset=settings.dataset)
    selection = select(
        catalogue,
        settings.plugins,
        dataset=settings.dataset,
        options=settings.options,
        clusterer=settings.clusterer,
        memory=settings.memory,
        recipe=settings.recipe_of,
    )
    recipe = apply_recipe(selection.recipe, settings.recipe)
    if settings.reference == "pretrained":
        recipe = recipe.shortened(epochs=0)
    model = {key: value for key, value in settings.model.items() if key != "backbone"}
    backbone = _choose(
        BackboneProvider, resolve_backbone(settings, recipe), [CORE, *named], model, dataset=settings.dataset
    )
    recipe = recipe.model_copy(update={"backbone": backbone.name})
    observers = choose_observers(catalogue.require, settings.observers)
    return Plan(
        resolved(settings, selection, recipe, backbone, dataset), selection, recipe, backbone, dataset, observers
    )


def _choose(kind: type[Provider], name: str, plugins: list[Plugin], options: dict[str, Any], *, dataset: str) -> Chosen:
    offers = [(plugin, provider) for plugin in plugins for provider in plugin.offers(kind)]
    found = [(plugin, provider) for plugin, provider in offers if provider.name == name]
    if not found:
        names = {provider.name for _, provider in offers}
        raise PluginError(f"There is no {kind.role} {name!r} among the named plugins. {suggest(name, names)}")
    if len({provider.factory for _, provider in found}) > 1:
        both = " and ".join(repr(plugin.name) for plugin, _ in found)
        raise PluginError(
            f"The plugins {both} each provide a {kind.role} {name!r}: rename one, or name one plugin only."
        )
    plugin, provider = found[0]
    section = "model" if kind is BackboneProvider else "data"
    for option in options:
        if option not in provider.options.model_fields:
            known = provider.options.model_fields
            raise SettingsError(f"The {kind.role} {name!r} has no option {section}.{option}. {suggest(option, known)}")
    try:
        return Chosen(provider, plugin, provider.resolve_options(dataset, options))
    except ValidationError as error:
        raise SettingsError(f"{section}: {explain(error)}") from error
