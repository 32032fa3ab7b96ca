"""One straight run and one begun run for all faults of a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.workbench import Bench


@pytest.fixture(scope="session")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), tiny)
