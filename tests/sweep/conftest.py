"""A grid of cells that train in seconds, and the harness's command line in a folder of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.cli import main
from tests.leaderboard.conftest import make_record

__all__ = ["make_record"]

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


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def harness(tmp_path: Path, monkeypatch, capsys) -> Callable[..., Result]:
    """``harness("sweep", ...)`` as the console script runs it, in a folder of this test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        return Result(code, *capsys.readouterr())

    return call
