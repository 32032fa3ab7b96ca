"""Fields of pydantic models in words, and tables of them in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_PLAIN = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    NoneType: "nothing",
    Any: "any value",
    AwareDatetime: "moment with time zone",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


def code(value: str) -> str:
    """``value`` as a Markdown code span."""
    return f"`{value}`"


def literal(value: Any) -> str:
    """A value as settings files and records write it: ``true``, ``"text"`` without its quotes, lists."""
    if isinstance(value, (str, Path)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def type_words(annotation: Any) -> str:
    """An annotation as a reader says it: ``whole number``, ``list of text``, ``` `mean` or `hard` ```."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = bounds(arguments[1:])
        return type_words(arguments[0]) + (f" ({limits})" if limits else "")
    if origin is Literal:
        return " or ".join(code(str(value)) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_words(argument) for argument in arguments))
    if origin in (tuple, list):
        return f"list of {_plural(type_words(arguments[0]))}"
    if origin in (dict, Mapping):
        return "table" if arguments[1] is Any else f"{type_words(arguments[1])}, by {type_words(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _plural(words: str) -> str:
    """Of a type's words: ``whole numbers (≥ 0)``."""
    return re.sub(r"^((?:whole )?number|path)\b", r"\1s", words)


def bounds(metadata: Iterable[Any]) -> str:
    """What limits a value, from the metadata of a field or an annotation: ``≥ 0, < 1``."""
    said = []
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            said.append(bounds(entry.metadata))
        for name, sign in _BOUNDS.items():
            if getattr(entry, name, None) is not None:
                said.append(f"{sign}\N{NO-BREAK SPACE}{literal(getattr(entry, name))}")
        if getattr(entry, "pattern", None):
            said.append(f"of the form {code(entry.pattern)}")
    return ", ".join(filter(None, said))


def field_type(field: FieldInfo) -> str:
    """A field's type and what limits it: ``number (≥ 0)``."""
    limits = bounds(field.metadata)
    return type_words(field.annotation) + (f" ({limits})" if limits else "")


def default_words(field: FieldInfo) -> str:
    """A field's default as a code span, ``required`` where it has none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    return "none" if value is None else code(literal(value) or '""')


def field_rows(model: type[BaseModel]) -> list[list[str]]:
    """One row per field: name, type with bounds, default, description."""
    return [
        [code(name), field_type(field), default_words(field), field.description or ""]
        for name, field in model.model_fields.items()
    ]


_SPAN = re.compile(r"(`[^`]*`|\[[^\]]*\]\(#[^)]*\))")


def cell(text: str) -> str:
    """``text`` for a cell of a Markdown table: code spans and links within the page stay, everything else is plain."""
    pieces = _SPAN.split(re.sub(r"[ \t\n]+", " ", text.replace("``", "`").strip()))
    return "".join(
        piece.replace("|", "\\|") if place % 2 else re.sub(r"([\\*<|\[\]])", r"\\\1", piece)
        for place, piece in enumerate(pieces)
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, without the columns that are empty in every row; nothing if there are no rows."""
    rows = [list(map(cell, row)) for row in rows]
    if not rows:
        return ""
    kept = [place for place, name in enumerate(columns) if any(row[place] for row in rows)]
    lines = [[columns[place] for place in kept], ["---"] * len(kept), *([row[place] for place in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
