"""Settings of a run and values of a recipe in Markdown."""

from __future__ import annotations

from fields import code, field_rows, table
from pydantic import BaseModel

from harness import Recipe, Stage
from harness.settings import Settings

_COLUMNS = ["setting", "type", "default", "meaning"]


def sections() -> dict[str, type[BaseModel]]:
    """The sections of the settings that have a model of their own, by name."""
    annotations = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {n: model for n, model in annotations.items() if isinstance(model, type) and issubclass(model, BaseModel)}


def settings() -> str:
    """A table of the plain settings, then one per section."""
    own = sections()
    plain = [row for row in field_rows(Settings) if row[0].strip("`") not in own]
    pieces = ["## The run", table(_COLUMNS, plain)]
    for name, model in own.items():
        rows = [[code(f"{name}.{row[0].strip('`')}"), *row[1:]] for row in field_rows(model)]
        pieces += [f"## {name}", str(model.__doc__), table(_COLUMNS, rows)]
    return "\n\n".join(pieces)


def recipe() -> str:
    """The values of a recipe."""
    rows = [row for row in field_rows(Recipe) if row[0] != "`stages`"]
    named = [[code(f"recipe.{row[0].strip('`')}"), *row[1:]] for row in rows]
    return table(_COLUMNS, named)


def stage() -> str:
    """The values of a stage."""
    return f"{Stage.__doc__}\n\n{table(_COLUMNS, field_rows(Stage))}"
