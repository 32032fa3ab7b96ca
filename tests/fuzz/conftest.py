"""Every test here runs on 30 examples, and as a slow test on 500."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzzing import outcome
from tests.leaderboard.conftest import make_record  # noqa: F401


@pytest.fixture(params=[pytest.param(30, id="short"), pytest.param(500, id="long", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest) -> Callable[[st.SearchStrategy[Any], Callable[[Any], None]], None]:
    """``fuzz(strategy, check)`` calls ``check`` with each example."""

    def run(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
        profile = settings(
            max_examples=request.param,
            derandomize=settings.default.derandomize,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        profile(given(example=strategy)(lambda example: check(example)))()

    return run


@pytest.fixture
def refusing() -> Callable[..., Any]:
    """``refusing(path, read)``: what ``read()`` gives, or None if it refuses the file by its name, in few words."""

    def attempt(path: Path, read: Callable[[], Any]) -> Any:
        before = sorted(path.parent.rglob("*"))
        found, error = outcome(read)
        assert sorted(path.parent.rglob("*")) == before
        assert error is None or (path.name in str(error) and len(str(error)) < 2000), str(error)
        return found

    return attempt
