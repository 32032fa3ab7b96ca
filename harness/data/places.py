"""Where the harness keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """The user's cache folder for the harness; the environment variable ``HARNESS_CACHE`` overrides it."""
    chosen = os.environ.get("HARNESS_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("vireid-harness"))
