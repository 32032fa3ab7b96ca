"""The documentation's folder, and the modules by which Sphinx writes its reference pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))


@pytest.fixture(scope="session")
def docs() -> Path:
    """The folder of the documentation's sources."""
    return DOCS
