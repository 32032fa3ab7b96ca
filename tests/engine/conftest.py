"""Runs of the toy method, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toy_runs import Ran, run_toy


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Callable[..., Ran]:
    """``run(out="a", resume=False, force=False, catalogue=None, **settings)``: a run in a folder of this test."""

    def go(out: str = "runs", **how) -> Ran:
        return run_toy(tmp_path / out, **how)

    return go
