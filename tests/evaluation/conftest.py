from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def _load(name):
    """Helper modules beside the tests, importable without making the tests a package."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"evaluation_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def oracle():
    return _load("oracle")


@pytest.fixture(scope="session")
def synthetic():
    return _load("synthetic")


@pytest.fixture(scope="session")
def splits(synthetic):
    """The folder of the official SYSU-MM01 split files."""
    folder = synthetic.official_splits()
    if folder is None:
        pytest.skip("the official rand_perm_cam.mat was not found; set HARNESS_SYSU_SPLITS to its folder")
    return folder
