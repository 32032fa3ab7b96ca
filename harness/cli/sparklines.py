"""Curves on one line of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-~=+*#"
_MOST = 40  # characters; longer curves are thinned out


def levels(stream: object = None) -> str:
    """The characters that ``stream`` (default: standard output) can show, lowest first."""
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "ascii"
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def sparkline(values: Sequence[float], *, characters: str = BLOCKS) -> str:
    """``values`` as one character each, from the lowest of them to the highest; the first and the last are there.

    >>> sparkline([0, 1, 2, 3])
    '▁▃▆█'
    """
    if len(values) > _MOST:
        step = (len(values) - 1) / (_MOST - 1)
        values = [values[round(place * step)] for place in range(_MOST)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    top = len(characters) - 1
    return "".join(
        characters[round((value - low) / (high - low) * top) if high > low else top // 2] for value in values
    )


def summary(curves: Sequence[tuple[str, Sequence[float]]], *, characters: str) -> list[str]:
    """One line for each curve: name, sparkline, first and last value; aligned."""
    width = max((len(name) for name, _ in curves), default=0)
    longest = min(_MOST, max((len(values) for _, values in curves), default=0))
    return [
        f"{name:<{width}}  {sparkline(values, characters=characters):<{longest}}  "
        f"{_number(values[0])} -> {_number(values[-1])}"
        for name, values in curves
        if values
    ]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
