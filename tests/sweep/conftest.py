"""A grid of cells that train in seconds, and the harness's command line in a folder of the test's own."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import harness
from tests.leaderboard.conftest import make_record

__all__ = ["harness", "make_record"]

TINY: dict[str, Any] = {
    "recipe": {
        "epochs": 2,
        "iterations": 2,
        "visible_clusters": 2,
        "infrared_clusters": 2,
        "instances": 2,
        "learning_rate": 0.02,
    },
    "data": {"size": "tiny"},
    "evaluation": {"trials": 1},
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
}
"""Settings with which a cell trains in two seconds, far enough that its figures depend on its parts."""
