"""``harness plugins``: what is installed, and what one plugin's options mean."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.plugins import Catalogue, Plugin
from harness.providers import Provider
from harness.reading import printable


@click.command()
@click.argument("name", required=False)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def plugins(name: str | None, debug: bool) -> None:
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
        status = f"broken: {plugin.problem}" if plugin.problem else "; ".join(["ok", *plugin.deprecations])
        others = [name for name, has in (("recipe", plugin.has_recipe), ("observer", plugin.observes)) if has]
        offers = ", ".join((*plugin.roles, *others))
        origin = f"{plugin.distribution} {plugin.version}".strip()
        cells = (plugin.name, card.kind if card else "", offers, paper, origin, status)
        table.add_row(*map(_safe, cells))
    return table


def _safe(text: str) -> str:
    """What a plugin wrote, without effect on the terminal."""
    return escape(printable(text))


def _describe(plugin: Plugin, console: Console) -> None:
    card = plugin.card
    if card is None:
        return
    origin = f"{card.kind}, {plugin.distribution} {plugin.version}"
    console.print(f"[bold]{_safe(plugin.name)}[/bold] ({_safe(origin)}): {_safe(card.summary)}", emoji=False)
    if card.paper:
        paper = f"{card.paper.title}. {card.paper.venue} {card.paper.year}. {card.paper.url}"
        console.print(printable(paper.strip()), markup=False, emoji=False)
    if plugin.observes:
        console.print(f"It observes runs: harness run --observers {_safe(plugin.name)}", emoji=False)
    if plugin.has_recipe:
        console.print("It has a training recipe of its own: the first-named plugin's recipe rules a run.")
    for provider in plugin.providers:
        console.print()
        what = _safe(f"{provider.role} {provider.name}")
        console.print(f"[bold]{what}[/bold]: {_safe(provider.summary)}", emoji=False)
        _print_options(provider, console)
        for dataset, preset in sorted(provider.presets.items()):
            values = ", ".join(f"{key} = {value}" for key, value in sorted(preset.items()))
            console.print(printable(f"  preset on {dataset}: {values}"), markup=False, highlight=False, emoji=False)


def _print_options(provider: Provider, console: Console) -> None:
    for option, field in provider.options.model_fields.items():
        default = "required" if field.default is PydanticUndefined else f"default {field.default}"
        head = f"  --set {provider.name}.{option}=...  ({_type_name(field.annotation)}; {default})"
        console.print(printable(head), markup=False, highlight=False, emoji=False)
        console.print(Padding(Text(printable(field.description or "")), (0, 0, 0, 6)))


def _type_name(annotation: Any) -> str:
    """An annotation as a reader writes it: ``one of 'mean', 'hard'``, ``number``, ``true or false``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else str(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_type_name(argument) for argument in arguments)
    if origin is tuple:
        return "list of " + _type_name(arguments[0])
    plain = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "nothing"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))
