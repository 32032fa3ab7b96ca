"""``harness plugins``: what is installed, and what one plugin's options mean."""

from __future__ import annotations

from typing import Any

import click
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from harness.plugins import Catalogue, Plugin
from harness.providers import Provider


@click.command()
@click.argument("name", required=False)
def plugins(name: str | None) -> None:
    """List installed plugins, or explain the parts and options of the plugin NAME."""
    catalogue, console = Catalogue(), Console()
    if name is None:
        console.print(_overview(catalogue))
        return
    _describe(catalogue.require(name), console)


def _overview(catalogue: Catalogue) -> Table:
    table = Table("name", "kind", "offers", "paper", "distribution", "status")
    for plugin in catalogue.values():
        card = plugin.card
        paper = f"{card.paper.venue} {card.paper.year}" if card and card.paper else ""
        status = "ok" if plugin.problem is None else f"broken: {plugin.problem}"
        offers = ", ".join((*plugin.roles, *(["recipe"] if plugin.has_recipe else [])))
        origin = f"{plugin.distribution} {plugin.version}".strip()
        table.add_row(plugin.name, card.kind if card else "", offers, paper, origin, status)
    return table


def _describe(plugin: Plugin, console: Console) -> None:
    card = plugin.card
    if card is None:
        return
    console.print(f"[bold]{plugin.name}[/bold] ({card.kind}, {plugin.distribution} {plugin.version}): {card.summary}")
    if card.paper:
        console.print(f"{card.paper.title}. {card.paper.venue} {card.paper.year}. {card.paper.url}".strip())
    if plugin.has_recipe:
        console.print("It has a training recipe of its own: the first-named plugin's recipe rules a run.")
    for provider in plugin.providers:
        console.print()
        console.print(f"[bold]{provider.role} {provider.name}[/bold]: {provider.summary}")
        if provider.options.model_fields:
            console.print(_options(provider))
        for dataset, preset in sorted(provider.presets.items()):
            values = ", ".join(f"{key} = {value}" for key, value in sorted(preset.items()))
            console.print(f"  on {dataset}: {values}")


def _options(provider: Provider) -> Table:
    table = Table("option (--set ...)", "type", "default", "meaning")
    for option, field in provider.options.model_fields.items():
        default = "required" if field.default is PydanticUndefined else str(field.default)
        table.add_row(f"{provider.name}.{option}", _type_name(field.annotation), default, field.description or "")
    return table


def _type_name(annotation: Any) -> str:
    name = getattr(annotation, "__name__", None)
    text = name if name and "[" not in str(annotation) else str(annotation)
    return text.replace("typing.", "")
