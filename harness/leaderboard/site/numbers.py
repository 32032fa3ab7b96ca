"""Numbers as the page writes them: fixed decimals, so that equal boards are equal bytes, and a true minus sign."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def fixed(value: float, decimals: int = 2) -> str:
    """``value`` with so many decimals; never a negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def signed(value: float, decimals: int = 2) -> str:
    """Like :func:`fixed`, with a plus sign before what is above zero once it is rounded."""
    text = fixed(value, decimals)
    return f"+{text}" if round(value, decimals) > 0 else text


def interval(low: float | None, high: float | None, *, with_sign: bool = False) -> str:
    """``"43.10 to 48.20"``; empty without both ends."""
    if low is None or high is None:
        return ""
    write = signed if with_sign else fixed
    return f"{write(low)} to {write(high)}"


def three_digits(value: float) -> str:
    """``value`` to three significant digits or to a whole number, without an exponent: 12345, 12.4, 0.0124."""
    if value == 0 or abs(value) >= 1000:
        return fixed(value, 0)
    rounded = float(f"{value:.3g}")
    return fixed(rounded, max(0, 2 - math.floor(math.log10(abs(rounded)))))


def coordinate(value: float) -> str:
    """A length in a drawing, to a tenth of a unit."""
    return f"{round(value, 1) + 0.0:.1f}"
