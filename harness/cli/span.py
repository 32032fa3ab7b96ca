"""Times as the terminal says them."""

from __future__ import annotations


def span(seconds: float) -> str:
    """A time in words, to the second below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
