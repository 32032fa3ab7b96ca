"""What strangers wrote: files read within bounds, values checked for being plain, text shown without effect."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

MOST_DEPTH = 32  # settings and records nest 6 deep; Python gives up near 1000, some libraries earlier
MOST_ARRAY_BYTES = 8 << 30  # SYSU-MM01's test images, 2048 dimensions, float64, with mirror images: 0.35 GiB

_MOST_SHRINKAGE = 100  # deflate saves a tenth of float features; a file of zeros shrinks 1000 times
_LEAST_BOUND = 64 << 20  # labels and empty cells shrink more, but are small


def read_text(
    path: Path, kind: str, *, most_bytes: int, error: type[HarnessError], form: str = "text", hint: str = ""
) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Args:
        path: the file; a larger one than ``most_bytes`` is refused before it is read.
        kind: what the file is, ``"run record"``, and ``form``: what is written in it, ``"a JSON file"``.
        error: what is raised.
        hint: ends every message: where the file comes from, or what is expected in it.

    Raises:
        HarnessError: ``error``, if the file cannot be opened, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            fits = os.fstat(file.fileno()).st_size <= most_bytes
            raw = file.read(most_bytes + 1) if fits else b""  # one more: a device has no size
    except (OSError, ValueError) as fault:  # ValueError: a path that holds a null character
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise error(f"Cannot read the {kind} {path}: {reason}. {hint}".rstrip()) from fault
    if not fits or len(raw) > most_bytes:
        raise error(
            f"The {kind} {path} is larger than {most_bytes:,} bytes, far more than such a file has. {hint}".rstrip()
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        where = f"byte {fault.start + 1} is 0x{raw[fault.start]:02x}"
        raise error(f"The {kind} {path} is not {form}: {where}, which is not UTF-8. {hint}".rstrip()) from fault


def parse_json(text: str) -> Any:
    """The value of a JSON text that every reader understands alike.

    Raises:
        ValueError: the text is no JSON, names a key twice, or holds what :func:`require_plain` refuses.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as fault:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep") from fault
    require_plain(value)
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {shortened(twice)!r} is there twice")
    return found


def require_plain(value: Any, *, at: str = "the whole", depth: int = MOST_DEPTH) -> None:
    """Raise a ValueError unless ``value`` could be written as TOML, as JSON, and be read back equal.

    That is: mappings with text keys, lists, tuples, texts and paths of valid Unicode, finite numbers, whole numbers of
    64 bits, truth values and None, not nested more than ``depth`` deep.
    """
    if depth < 0:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_plain(str(key), at=f"a name in {at}")
            require_plain(item, at=printable(shortened(str(key))), depth=depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            require_plain(item, at=at, depth=depth - 1)
    elif isinstance(value, (str, Path)):
        _require_unicode(str(value), at=at)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{at} is a whole number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{at} is {value}, where a finite number is expected")
    elif value is not None:
        raise ValueError(f"{at} is of type {type(value).__name__}; expected text, a number, a truth value or a list")


def _require_unicode(text: str, *, at: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise ValueError(f"{at} holds {text[fault.start]!r}, which is no character of Unicode") from fault


def printable(text: str) -> str:
    r"""``text`` with everything that moves a cursor, colours or hides written out, on one line.

    >>> print(printable("a\x1b[31m\nb"))
    a\x1b[31m\nb
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def shown(text: str) -> str:
    """``text`` of several lines, each :func:`printable`."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, *, most: int = 80) -> str:
    """``text`` cut for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unpacked_bound(path: Path) -> int:
    """The bytes that a file of arrays may hold once unpacked; more is no file of features.

    Raises:
        OSError: there is no such file.
    """
    size = path.stat().st_size
    return min(MOST_ARRAY_BYTES, max(_LEAST_BOUND, _MOST_SHRINKAGE * size))
