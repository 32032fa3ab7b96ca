"""What the source of a part names: read, never run."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DEVICE = re.compile(r"cuda(:\d+)?|mps(:\d+)?|xpu(:\d+)?")
_DEVICE_METHODS = {"cuda", "mps", "xpu"}
_CLOSED = ("harness.cli", "harness.data", "harness.engine", "harness.evaluation", "harness.leaderboard")
_PRYING_MODULES = {"gc"}
_PRYING_NAMES = {"_getframe", "_current_frames", "currentframe", "f_back", "f_locals", "tb_frame", "get_objects"}


@dataclass(frozen=True)
class Source:
    """One module that a part is made of: its name and its syntax tree."""

    module: str
    tree: ast.Module


@cache
def sources_of(factory: str) -> tuple[Source, ...]:
    """The modules of a part's own package that its factory ``"module:attribute"`` imports, itself first.

    Modules of the harness are left out: they are not the part's.
    """
    found: dict[str, Source] = {}
    waiting = [factory.partition(":")[0]]
    package = waiting[0].partition(".")[0]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] != package or package == "harness":
            continue
        path = _file(name)
        if path is not None:
            found[name] = Source(name, ast.parse(path.read_text(encoding="utf-8")))
            waiting += [imported for imported, _ in imports(found[name])]
    return tuple(found.values())


def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def imports(source: Source) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a source, inside functions too, with the line."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, source.module)
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    above = module.split(".")[: -node.level] or [module.partition(".")[0]]
    return ".".join([*above, *([node.module] if node.module else [])])


def devices_named(source: Source) -> list[str]:
    """Places at which a device is named: ``module, line N: what``."""
    places = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _DEVICE.fullmatch(node.value):
            places.append((node.lineno, repr(node.value)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _DEVICE_METHODS:
            places.append((node.lineno, f".{node.func.attr}()"))
    return [f"{source.module}, line {line}: {what}" for line, what in sorted(places)]


def prying(source: Source) -> list[str]:
    """Places that reach for the run, its data or other code's variables: ``module, line N: what``."""
    places = [(line, name) for name, line in imports(source) if _closed(name) or name in _PRYING_MODULES]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in _PRYING_NAMES:
            places.append((node.lineno, node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _closed(node.value.partition(":")[0]):
            places.append((node.lineno, repr(node.value)))
    return [f"{source.module}, line {line}: {what}" for line, what in sorted(set(places))]


def _closed(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _CLOSED)
