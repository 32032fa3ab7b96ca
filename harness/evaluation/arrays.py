"""Named arrays from ``.npz`` and ``.safetensors`` files that anybody may have made: no objects, nothing unbounded."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.reading import printable, shortened, unpacked_bound

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Arrays = dict[str, NDArray[Any] | None]
"""By name, in the file's order; None for an array that was not wanted, and therefore not read."""


def read_npz(path: Path, wanted: Collection[str]) -> Arrays:
    """The ``wanted`` arrays of an ``.npz`` file.

    Raises:
        DataError: the file is damaged, holds objects or one name twice, or claims more than it holds.
    """
    try:
        most = _checked_size(path)
        with zipfile.ZipFile(path) as archive:
            names = _distinct([_name_of(member) for member in archive.infolist()])
            _require_honest(archive, wanted, most=most)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] if name in wanted else None for name in names}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        hint = " Store `paths` as text, not as objects: np.array(paths, dtype=str)." if "object" in str(error) else ""
        raise DataError(
            f"{path} cannot be read as an .npz file: {printable(shortened(str(error), most=300))}.{hint}"
        ) from error


def read_safetensors(path: Path, wanted: Collection[str]) -> tuple[Arrays, dict[str, str]]:
    """The ``wanted`` arrays of a ``.safetensors`` file, and its metadata.

    Raises:
        DataError: the file is damaged, or claims more than it holds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _checked_size(path)
        with safe_open(path, framework="numpy") as file:
            names = _distinct(list(file.keys()))
            arrays = {name: file.get_tensor(name) if name in wanted else None for name in names}
            return arrays, file.metadata() or {}
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a safetensors file: {printable(shortened(str(error), most=300))}."
        ) from error


def _checked_size(path: Path) -> int:
    """The bytes that the file may hold once unpacked. Raises a ValueError if it has more already."""
    size, most = path.stat().st_size, unpacked_bound(path)
    if size > most:
        raise ValueError(f"it has {size:,} bytes, and at most {most:,} are read")
    return most


def _require_honest(archive: zipfile.ZipFile, wanted: Collection[str], *, most: int) -> None:
    """Raise a ValueError if the archive unpacks to more than ``most``, or a header claims what does not follow it.

    Nothing but headers is unpacked for it.
    """
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, far more than its size")
    for member in archive.infolist():
        if _name_of(member) in wanted:
            with archive.open(member) as stream:
                claimed = _claimed_bytes(stream)
                follow = member.file_size - stream.tell()
            if claimed != follow:
                raise ValueError(f"`{_name_of(member)}` claims {claimed:,} bytes where {follow:,} follow")


def _claimed_bytes(stream: Any) -> int:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array is of format {version}; expected {' or '.join(map(str, _HEADERS))}")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array holds objects, which could run code when read")
    return math.prod(shape) * dtype.itemsize


def _name_of(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _distinct(names: list[str]) -> list[str]:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"it holds `{shortened(twice[0])}` twice")
    return names
