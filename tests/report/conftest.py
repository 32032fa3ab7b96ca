"""Runs of the toy method to report on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.data.rendered import write_rendered
from harness.engine.run import plan_run, run_planned
from toy_parts import Silent, toy_catalogue, toy_settings
from toy_runs import run_toy

SETTINGS = {"options": {"by-index": {"form": "linked"}}, "evaluation": {"every": 1, "trials": 2}}


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; read it only."""
    return run_toy(tmp_path_factory.mktemp("report"), **SETTINGS).folder


@pytest.fixture(scope="session")
def regdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a tree in RegDB's layout; read it only."""
    root = tmp_path_factory.mktemp("report-regdb")
    write_rendered(root / "tree", layout="regdb", size="tiny", seed=0)
    settings = toy_settings(dataset="regdb", data_root=root / "tree").model_copy(update={"data": {}})
    run_planned(plan_run(settings, toy_catalogue()), root, resume=False, force=False, show=Silent())
    return root / "toy"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def unfinished(copy: Path) -> Path:
    """A run that failed before its end: no record, no embeddings, no weights."""
    for name in ("record.json", "embeddings.safetensors", "weights.safetensors"):
        (copy / name).unlink()
    return copy
