"""One cache folder for the whole session, shared by the workers of pytest-xdist, and one thread for arithmetic.

Hypothesis tries the same examples in every session, so that a change fails for what it changed; HYPOTHESIS_EXPLORE=1
tries new ones.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
TOYS = Path(__file__).parent / "toy"
sys.path.insert(0, str(TOYS))

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

EXPLORE = bool(os.environ.get("HYPOTHESIS_EXPLORE"))
settings.register_profile(
    "harness", derandomize=not EXPLORE, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("harness")


@pytest.fixture(scope="session", autouse=True)
def harness_cache(tmp_path_factory: pytest.TempPathFactory):
    """The folder that HARNESS_CACHE names during the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "harness-cache"
    before = os.environ.get("HARNESS_CACHE")
    os.environ["HARNESS_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["HARNESS_CACHE"]
    else:
        os.environ["HARNESS_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(harness_cache: Path) -> Path:
    """The rendered dataset of size tiny, drawn once; read it only."""
    from harness.data.rendered import ensure_rendered

    return ensure_rendered(size="tiny", seed=0)


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny-copy"))
