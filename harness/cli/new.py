"""``harness new``: asks what the method consists of, writes the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import click

from harness.errors import SettingsError
from harness.plugins import FALLBACK, GROUP, Catalogue, Selection, select

_NOTHING = ("", "none")


def _words(text: str) -> tuple[str, ...]:
    if text.strip() in _NOTHING:
        return ()
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


@click.command()
@click.argument("name")
@click.option("--roles", help="Roles to write parts of its own for: clusterer, refiner, memory, loss; or none.")
@click.option("--use", help=f"Plugins whose parts it uses for the rest, and whose recipe (default: {FALLBACK}).")
@click.option("--clusterer", help="Whose clusterer, if several of those plugins bring one.")
@click.option("--memory", help="Whose memory, if several of those plugins bring one.")
@click.option("--summary", help="One line on what the method does.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write (default: harness-NAME).")
@click.option("--no-input", is_flag=True, help="Ask nothing; take the defaults (a loss of its own) and the flags.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def new(name: str, *, out: Path | None, no_input: bool, debug: bool, **flags: str | None) -> None:
    """Write a plugin package to start from. Without flags it asks.

    \b
    harness new my-loss                                   asks which roles
    harness new my-mix --roles none --use pgm,tsmem       existing parts under one name
    harness new my-method --roles memory,loss --no-input
    """
    from harness.scaffold import Blueprint, require_name, require_parts, require_roles, require_summary, write_package

    catalogue = Catalogue()
    taken = _taken(catalogue)
    require_name(name, taken=taken)
    answers = _answers(name, flags, ask=not no_input and not any(flags.values()) and out is None)
    roles, used = require_roles(_words(answers["roles"])), _words(answers["use"])
    require_summary(answers["summary"])
    if not roles and not used:
        raise SettingsError("There is nothing to write: name --roles to write parts for, plugins to --use, or both.")
    clusterer, memory = (FALLBACK if word in roles else flags[word] for word in ("clusterer", "memory"))
    chosen = select(catalogue, used, dataset="rendered", clusterer=clusterer, memory=memory)
    blueprint = Blueprint(
        name,
        answers["summary"],
        roles,
        taken=_parts_taken(catalogue, used, chosen, roles),
        recipe=next((name for name in used if catalogue[name].has_recipe), None),
        sources=_sources(used),
    )
    require_parts(blueprint, taken=taken)
    folder = out or Path(blueprint.distribution)
    files = write_package(blueprint, folder)
    click.echo(f"{folder}: " + ", ".join(str(path.relative_to(folder)) for path in files))
    click.echo(
        f"\npip install -e {folder}\nharness plugins {name}\n"
        f"harness run --plugins {name} --set data.size=tiny --epochs 2 --iterations 4"
    )


def _taken(catalogue: Catalogue) -> dict[str, str]:
    """Names that a plugin may not have, with what has them."""
    from harness.settings import Settings

    taken = dict.fromkeys(Settings.model_fields, "it is a section of the settings")
    for plugin in catalogue.values():
        taken |= {p.name: f"the plugin {plugin.name!r} has a {p.role} of that name" for p in plugin.providers}
    origins = {plugin.name: plugin.distribution for plugin in catalogue.values()}
    return taken | {name: f"it is a plugin of {origin or 'this installation'}" for name, origin in origins.items()}


def _answers(name: str, given: dict[str, str | None], *, ask: bool) -> dict[str, str]:
    questions = {
        "roles": ("Roles to write parts of its own for (clusterer, refiner, memory, loss; none)", "loss"),
        "use": ("Plugins whose parts it uses for the rest", FALLBACK),
        "summary": ("What it does, in one line", f"The method {name}."),
    }
    try:
        return {
            key: click.prompt(text, default=default) if ask else _given(given[key], default)
            for key, (text, default) in questions.items()
        }
    except click.Abort as abort:
        raise SettingsError("No answer came, and nothing was written. --no-input takes the defaults.") from abort


def _given(value: str | None, default: str) -> str:
    return default if value is None else value


def _parts_taken(
    catalogue: Catalogue, used: Sequence[str], chosen: Selection, own: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """For each role, the plugins whose parts the method uses: those of a run that names them, but for its own."""
    from harness.scaffold import ROLES

    offer = {word: [name for name in used if catalogue[name].offers(role.provider)] for word, role in ROLES.items()}
    for word, part in (("clusterer", chosen.clusterer), ("memory", chosen.memory)):
        offer[word] = [name for name in offer[word] if name == part.plugin.name and word not in own]
    return {word: tuple(names) for word, names in offer.items()}


def _sources(used: Sequence[str]) -> dict[str, str]:
    """Where each plugin's class is, ``"module:Class"``. Raises SettingsError for one that is no class of a module."""
    values = {point.name: point.value for point in entry_points(group=GROUP)}
    for name in used:
        if values.get(name, "").count(":") != 1:
            raise SettingsError(f"The plugin {name!r} is not a class in a module, so that its parts cannot be named.")
    return {name: values[name] for name in used}
