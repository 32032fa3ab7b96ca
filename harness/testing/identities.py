"""Looking for hidden identities in whatever Python code can reach from a value."""

from __future__ import annotations

import os
import re
import sys
import types
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

OPAQUE = (types.ModuleType, type, torch.device, torch.dtype, types.BuiltinFunctionType, torch.Generator)
TELLING = re.compile(r"cam\d[/\\]\d{4}")
"""A path of the datasets' layout names the person after the camera."""

_MOST_COLUMNS = 64


def reachable(value: Any) -> Iterator[tuple[str, Any]]:
    """Everything that Python code can reach from a value in one step, short of modules and classes."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
        yield from (("key", key) for key in value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{place}]", item) for place, item in enumerate(value))
    if isinstance(value, types.FunctionType):
        yield from (("closure", cell.cell_contents) for cell in value.__closure__ or () if _filled(cell))
        yield "defaults", value.__defaults__
        yield "defaults", value.__kwdefaults__
    if isinstance(value, types.MethodType):
        yield from (("self", value.__self__), ("function", value.__func__))
    if isinstance(value, types.GeneratorType):
        yield "locals", value.gi_frame.f_locals if value.gi_frame else {}
    if isinstance(value, weakref.ref):
        yield "referent", value()
    for name in ("func", "args", "keywords", "base", "filename", "grad_fn", "_base"):
        if isinstance(value, (Tensor, np.ndarray)) or name in ("func", "args", "keywords"):
            yield name, getattr(value, name, None)
    yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield f".{name}", getattr(value, name, None)


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def walk(value: Any, path: str, *, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that can be reached from ``value``, once, with the path to it. ``seen`` is filled, and kept alive."""
    stack = [(value, path)]
    while stack:
        value, path = stack.pop()
        if value is None or isinstance(value, (bool, int, float, complex, *OPAQUE)) or id(value) in seen:
            continue
        seen[id(value)] = value  # kept alive, so that no id is used twice
        yield path, value
        if not isinstance(value, (str, bytes)):
            stack += [(item, path + step) for step, item in reachable(value)]


class Walk:
    """Walks object graphs and keeps the paths at which an identity can be read off.

    ``secrets``: identities of image sets, one array each. A secret is found under any names for the people, as an
    array, a tensor, a list or one column of a table; so is a path of the datasets' layout.
    """

    def __init__(self, secrets: Sequence[np.ndarray]) -> None:
        self.secrets: dict[int, list[np.ndarray]] = {len(secret): [] for secret in secrets}
        for secret in secrets:
            self.secrets[len(secret)].append(relabelled(secret))
        self.seen: dict[int, Any] = {}
        self.leaks: list[str] = []

    def __call__(self, value: Any, path: str) -> None:
        self.leaks += [place for place, found in walk(value, path, seen=self.seen) if self.tells(found)]

    def tells(self, value: Any) -> bool:
        """Whether this one value is a secret."""
        if isinstance(value, (str, bytes, Path)):
            return bool(TELLING.search(value.decode("latin1") if isinstance(value, bytes) else str(value)))
        return any(
            np.array_equal(relabelled(column), secret)
            for column in self._columns(value)
            for secret in self.secrets.get(len(column), ())
        )

    def _columns(self, value: Any) -> list[np.ndarray]:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        elif isinstance(value, (list, tuple)) and len(value) in self.secrets:
            value = np.asarray(value) if all(isinstance(item, (int, np.integer)) for item in value) else None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            return []
        if value.ndim == 1:
            return [value]
        return list(value.T) if value.ndim == 2 and value.shape[1] < _MOST_COLUMNS else []


def relabelled(values: np.ndarray) -> np.ndarray:
    """Ids in the order of their first appearance: equal for labellings that are equal up to names."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    found: np.ndarray = np.argsort(np.argsort(first))[inverse]
    return found


@contextmanager
def watched_files() -> Iterator[list[str]]:
    """The images that are opened, and the folders of images that are listed, within the block, by path."""
    _listen_once()
    places: list[str] = []
    _WATCHES.append(places)
    try:
        yield places
    finally:
        _WATCHES.remove(places)


_WATCHES: list[list[str]] = []
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp")


@cache
def _listen_once() -> None:
    # An audit hook cannot be taken away again; it does nothing while nobody watches.
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHES and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, Path)):
        path = os.fsdecode(arguments[0])
        if path.lower().endswith(_IMAGES) or TELLING.search(path) or re.search(r"[/\\]cam\d$", path):
            for places in _WATCHES:
                places.append(path)
