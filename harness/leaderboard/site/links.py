"""Addresses in plain text become links; everything else in it stays text."""

from __future__ import annotations

import re

from markupsafe import Markup

_ADDRESS = re.compile(
    r"""(?P<web>https?://[^\s<>"'()\[\]{}]*[^\s<>"'()\[\]{}.,;:])|arXiv:(?P<paper>\d{4}\.\d{4,5}(?:v\d+)?)"""
)


def linked(text: str) -> Markup:
    """``text`` escaped, with its web addresses and arXiv identifiers as links (never another scheme)."""
    result, done = Markup(""), 0
    for found in _ADDRESS.finditer(text):
        address = found["web"] or f"https://arxiv.org/abs/{found['paper']}"
        result += text[done : found.start()]
        result += Markup('<a href="{}">{}</a>').format(address, found[0])
        done = found.end()
    return result + text[done:]
