"""The command line in Markdown, from its click commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from fields import code, literal, table

from harness.cli import cli


def commands() -> str:
    """One section per command, in the order of ``harness --help``."""
    return "\n\n".join(_command(name, command) for name, command in walk(cli, "harness"))


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name, those of groups in place of the group."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    for word in command.list_commands(click.Context(command)):
        inner = command.get_command(click.Context(command), word)
        if inner is not None:
            yield from walk(inner, f"{name} {word}")


def _command(name: str, command: click.Command) -> str:
    words = " ".join([name, *command.collect_usage_pieces(click.Context(command))])
    pieces = [f"## {name}", _block(words), *_help(command)]
    pieces.append(
        table(["argument or flag", "values", "default", "meaning"], [_row(parameter) for parameter in command.params])
    )
    return "\n\n".join(filter(None, pieces))


def _help(command: click.Command) -> Iterator[str]:
    """The paragraphs of a command's help; one that click is told not to wrap is a block of its lines."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield _block(paragraph.removeprefix("\b\n")) if paragraph.startswith("\b") else paragraph


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _row(parameter: click.Parameter) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [code(_argument(parameter)), "", "", "" if parameter.required else "Optional."]
    assert isinstance(parameter, click.Option)
    flags = ", ".join(code(flag) for flag in (*parameter.opts, *parameter.secondary_opts))
    repeats = " Repeatable." if parameter.multiple and "repeat" not in (parameter.help or "").lower() else ""
    return [flags, _values(parameter), _default(parameter), (parameter.help or "") + repeats]


def _argument(argument: click.Argument) -> str:
    """An argument as the usage line calls it: ``RUN``, ``RUN...``."""
    name = (argument.metavar or str(argument.name)).upper().removesuffix("...").strip("[]")
    return f"{name}..." if argument.nargs == -1 else name


_NAMES = {"integer": "whole number", "integer range": "whole number", "float": "number", "float range": "number"}


def _values(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        return ""
    if isinstance(kind, click.Choice):
        return " or ".join(code(str(choice)) for choice in kind.choices)
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        ends = {">" if kind.min_open else "≥": kind.min, "<" if kind.max_open else "≤": kind.max}
        limits = ", ".join(f"{sign}\N{NO-BREAK SPACE}{end}" for sign, end in ends.items() if end is not None)
        return f"{_NAMES[kind.name]} ({limits})" if limits else _NAMES[kind.name]
    return code(option.metavar) if option.metavar else _NAMES.get(kind.name, kind.name)


def _default(option: click.Option) -> str:
    return code(literal(option.default)) if option.show_default and not option.is_flag else ""
