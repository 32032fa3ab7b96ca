"""The schema of a run's record in Markdown, from its pydantic models."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from fields import code, default_words, field_type, table
from pydantic import BaseModel

from harness.leaderboard.record import Record


def models(first: type[BaseModel] = Record) -> list[type[BaseModel]]:
    """``first`` and every model that its fields hold, each once, in the order met."""
    found = [first]
    for model in found:
        for field in model.model_fields.values():
            found += [inner for inner in _models_in(field.annotation) if inner not in found]
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def schema() -> str:
    """One section per model: what its docstring says, and a table of its fields."""
    return "\n\n".join(_model(model) for model in models())


def _model(model: type[BaseModel]) -> str:
    prose, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes:")
    said = described(attributes)
    rows = [
        [code(name), field_type(field), default_words(field), said.get(name, "")]
        for name, field in model.model_fields.items()
    ]
    prose = prose.strip().replace("``", "`")
    return f"## {model.__name__}\n\n{prose}\n\n" + table(["field", "type", "default", "meaning"], rows)


def described(attributes: str) -> dict[str, str]:
    """The entries of a docstring's ``Attributes:`` by name; a sentence that begins with a name is an entry too."""
    text = " ".join(attributes.split())
    names = list(re.finditer(r"(?:^|(?<=\. ))`{0,2}(\w+)`{0,2}: ", text))
    ends = [match.start() for match in names[1:]] + [len(text)]
    return {match[1]: text[match.end() : end].strip() for match, end in zip(names, ends, strict=False)}
