"""How much memory a clustering needs, told before it is taken.

The figures are for what is allocated beside the features and the interpreter. What depends on the data (how many
neighbours are shared) is estimated before the search from typical data, and checked again when it is known.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.errors import SettingsError

_GIB = 1 << 30

_ENCODED_PER_NEIGHBOUR = 2
"""Entries of an encoding per place of the rank list, k1: typical; at most k1/2 + 2."""

_SHARED_BY_EXPANSION = 0.5
"""Entries of an averaged encoding, per entry of the k2 encodings averaged: typical; at most 1."""


def clustering_bytes(rows: int, size: int, *, k1: int = 30, k2: int = 6) -> int:
    """Estimated peak memory, in bytes, of the Jaccard distance and DBSCAN of [rows, size] above the features."""
    k1 = min(k1, max(1, rows))
    encoded = _ENCODED_PER_NEIGHBOUR * k1
    averaged = encoded if k2 == 1 else max(encoded, int(_SHARED_BY_EXPANSION * min(k2, k1) * encoded))
    encoding = rows * (8 * k1 + 8 * encoded + 8 * averaged)
    return max(search_bytes(rows, size, k1), encoding + overlap_bytes(rows, rows * averaged))


def search_bytes(rows: int, size: int, k: int) -> int:
    """Memory of the compiled neighbour search: rounded rows, candidate lists, rank lists, one block of products."""
    return rows * (size + 8 * max(4 * k, 256) + 8 * k + 96) + 64 * (1 << 20)


def overlap_bytes(rows: int, entries: int) -> int:
    """Memory of the distances from an encoding of so many entries: its columns, the pairs found and their matrix."""
    return 12 * entries + 24 * entries // 2 + 64 * rows


def available_bytes() -> int | None:
    """Memory that this process can still take, in bytes, or None where the system does not say."""
    found = [value for value in (_from_meminfo(), _from_control_group(), _from_address_limit()) if value is not None]
    return max(0, min(found)) if found else None


def require_memory(needed: int, what: str, shape: Sequence[int]) -> None:
    """Raises ``SettingsError`` if ``needed`` bytes are not there, with the figure and how many rows would fit."""
    there = available_bytes()
    if there is None or needed <= there:
        return
    rows = int(shape[0] * there / needed)
    raise SettingsError(
        f"{what} of {shape[0]:,} rows × {shape[1]:,} needs about {needed / _GIB:.2f} GiB beside the features; "
        f"{there / _GIB:.2f} GiB are available. About {rows:,} rows would fit: cluster fewer images at once (for "
        "example each modality alone), lower k1 or k2, or use a machine with more memory."
    )


def _from_meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _from_control_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        return None if limit == "max" else int(limit) - int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _from_address_limit() -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit - pages * os.sysconf("SC_PAGE_SIZE")
