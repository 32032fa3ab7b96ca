"""Names that are fit for a file and a link on every system."""

from __future__ import annotations

import re


def slug(text: str) -> str:
    """``text`` in lower case, with a hyphen for everything else than letters and digits of ASCII.

    >>> slug("sysu-mm01/all/single/S/v1")
    'sysu-mm01-all-single-s-v1'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
