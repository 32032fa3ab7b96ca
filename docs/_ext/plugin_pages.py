"""Plugins of this repository in Markdown: cards, parts, options with their presets, recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fields import code, default_words, field_type, literal, table

from harness import Recipe, Stage
from harness.builtin import Core
from harness.plugins import Catalogue, Plugin
from harness.providers import Provider

DISTRIBUTION = "vireid-harness"
DATASETS = ("sysu-mm01", "regdb", "rendered")
CORE = "core"
_COLUMNS = ["option", "type", "default", "on a dataset", "meaning"]


@cache
def in_tree() -> dict[str, Plugin]:
    """The plugins that come with the harness, methods first, then parts, then the core's own offers."""
    catalogue = Catalogue()
    ours = [plugin for plugin in catalogue.values() if plugin.distribution == DISTRIBUTION]
    broken = [f"{plugin.name}: {plugin.problem}" for plugin in ours if plugin.problem]
    if broken or not ours:
        raise RuntimeError(f"The plugins of {DISTRIBUTION} cannot be described: {'; '.join(broken) or 'none found'}.")
    ours.sort(key=lambda plugin: (plugin.card.kind != "method", plugin.name))
    core = Catalogue([], extra={CORE: Core})
    return {plugin.name: plugin for plugin in (*ours, core[CORE])}


def plugins() -> str:
    """One section per plugin. A part that several plugins offer is described once, and elsewhere by what differs."""
    found = in_tree()
    described = homes(found)
    return "\n\n".join(_plugin(plugin, described) for plugin in found.values())


def homes(found: Mapping[str, Plugin]) -> dict[str, Plugin]:
    """The plugin under which each part is described: the one of its name, else the first that offers it."""
    offers: dict[str, list[Plugin]] = {}
    for plugin in found.values():
        for provider in plugin.providers:
            offers.setdefault(_key(provider), []).append(plugin)
    return {
        key: next((plugin for plugin in plugins if plugin.name == key.partition(" ")[0]), plugins[0])
        for key, plugins in offers.items()
    }


def _key(provider: Provider) -> str:
    return f"{provider.name} {provider.factory}"


def _plugin(plugin: Plugin, described: Mapping[str, Plugin]) -> str:
    card = plugin.card
    assert card is not None
    pieces = [f"## {plugin.name}", f"A {card.kind}. {card.summary}"]
    if card.paper:
        address = f" <{card.paper.url}>" if card.paper.url else ""
        pieces.append(f"*{card.paper.title}.* {card.paper.venue} {card.paper.year}.{address}")
    if plugin.has_recipe:
        pieces.append("It has a recipe of its own, the last table of this section.")
    if plugin.observes:
        pieces.append(f"It observes runs that name it: {code(f'--observers {plugin.name}')}.")
    for provider in plugin.providers:
        home = described[_key(provider)]
        pieces.append(f"### {provider.role.capitalize()} {code(provider.name)}")
        pieces.append(_part(provider) if home is plugin else _part_of_another(provider, home))
    if plugin.has_recipe:
        pieces += ["### Recipe", _recipe(plugin)]
    return "\n\n".join(filter(None, pieces))


def _part_of_another(provider: Provider, home: Plugin) -> str:
    """Where the part is described, and the options that are otherwise here."""
    there = next(other for other in home.providers if _key(other) == _key(provider))
    rows = [row for row in option_rows(provider) if row not in option_rows(there)]
    where = f"The part of [{home.name}](#{home.name})"
    return f"{where}, with other values of these options:\n\n{table(_COLUMNS, rows)}" if rows else f"{where}."


def _part(provider: Provider) -> str:
    needs = f" It needs: {', '.join(provider.needs)}." if provider.needs else ""
    uses = f" It uses: {', '.join(provider.uses)}." if provider.uses else ""
    options = table(_COLUMNS, option_rows(provider))
    return f"{provider.summary}{needs}{uses}\n\n{options or 'No options.'}"


def option_rows(provider: Provider) -> list[list[str]]:
    """One row per option: name, type with bounds, default, the values that presets put in its place, description."""
    return [
        [
            code(name),
            field_type(field),
            default_words(field),
            _preset_words(provider, name),
            (field.description or "") + _uses(field.json_schema_extra),
        ]
        for name, field in provider.options.model_fields.items()
    ]


def _preset_words(provider: Provider, option: str) -> str:
    there = {name: preset[option] for name, preset in sorted(provider.presets.items()) if option in preset}
    return ", ".join(f"{name} {code(literal(value))}" for name, value in there.items())


def _uses(extra: Any) -> str:
    return f" Uses {extra['uses']}." if isinstance(extra, Mapping) and "uses" in extra else ""


def _recipe(plugin: Plugin) -> str:
    recipes = {name: found for name in DATASETS if (found := plugin.recipe(name)) is not None}
    rows = [
        [f"stage {number + 1}", *(_stage(recipe, number) for recipe in recipes.values())]
        for number in range(max(len(recipe.stages) for recipe in recipes.values()))
    ]
    for name, field in Recipe.model_fields.items():
        values = [getattr(recipe, name) for recipe in recipes.values()]
        if name != "stages" and any(value != field.default for value in values):
            rows.append([code(name), *(code(literal(value)) for value in values)])
    return table(["value", *recipes], rows)


def _stage(recipe: Recipe, number: int) -> str:
    if number >= len(recipe.stages):
        return "—"
    stage = recipe.stages[number]
    return f"{code(stage.name)}: {stage.epochs} × {stage.iterations}" + "".join(_stage_values(stage))


def _stage_values(stage: Stage) -> Iterator[str]:
    for name, field in Stage.model_fields.items():
        value = getattr(stage, name)
        if name not in ("name", "epochs", "iterations") and value != field.default:
            yield f", {name} {code(literal(value))}"
