"""Settings of a run as text: the options of its parts, and where rows of one method differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.leaderboard.record import Record, settings_beside_parts
from harness.reading import shortened

_MOST_DIFFERENCES = 6
_LONGEST_VALUE = 60
NOT_SET = "not set"


def options_of(record: Record) -> tuple[tuple[str, str, str], ...]:
    """``(part, option, value)`` of every part, in the record's order, and of the encoder what is not its default."""
    owners = [(part.name, part.options) for part in record.parts] + [(record.encoder.name, record.encoder.options)]
    return tuple((owner, name, as_text(value)) for owner, options in owners for name, value in options.items())


def as_text(value: Any) -> str:
    """A setting's value: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def differing_settings(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Of each record, the settings in which not all of ``records`` agree, as ``recipe.learning_rate = 0.002``.

    Of more than six, the number of the rest is told: the settings digest tells rows apart, these help to see how.
    """
    flat = [flattened(_settings(record)) for record in records]
    names = sorted({name for settings in flat for name in settings})
    differing = [name for name in names if len({settings.get(name) for settings in flat}) > 1]
    shown, rest = differing[:_MOST_DIFFERENCES], len(differing) - _MOST_DIFFERENCES
    more = (f"{rest} more settings differ",) if rest > 0 else ()
    return [
        tuple(f"{name} = {shortened(settings.get(name, NOT_SET), most=_LONGEST_VALUE)}" for name in shown) + more
        for settings in flat
    ]


def _settings(record: Record) -> dict[str, Any]:
    """What the settings digest covers, parts by name."""
    parts = {part.name: part.options | {"version": part.version} for part in record.parts}
    return settings_beside_parts(record) | parts


def flattened(settings: Mapping[str, Any], *, under: str = "") -> dict[str, str]:
    """Values as text by dotted name.

    >>> flattened({"recipe": {"epochs": 12}})
    {'recipe.epochs': '12'}
    """
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flattened(value, under=f"{under}{name}.")
        else:
            found[f"{under}{name}"] = as_text(value)
    return found
