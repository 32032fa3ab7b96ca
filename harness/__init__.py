"""A plugin-based benchmark harness for unsupervised visible-infrared person re-identification.

Everything a plugin author needs is named in ``__all__``. Names that need torch are loaded on first use, so that
``import harness`` (and with it ``harness --help`` and ``harness plugins``) stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

from harness.errors import ContractError, HarnessError, PluginError
from harness.hookspecs import hookimpl
from harness.providers import (
    CAMERA_LABELS,
    USES_CAMERAS,
    BackboneProvider,
    ClustererProvider,
    DatasetProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Options,
    Paper,
    PluginCard,
)
from harness.recipe import Recipe, Stage

__version__ = "0.1.0"

_LAZY = {
    "Bank": "harness.contracts",
    "BankKind": "harness.contracts",
    "Batch": "harness.contracts",
    "Clusterer": "harness.contracts",
    "Draw": "harness.contracts",
    "Embeddings": "harness.contracts",
    "EpochContext": "harness.contracts",
    "LabelRefiner": "harness.contracts",
    "Loss": "harness.contracts",
    "Memory": "harness.contracts",
    "Modality": "harness.contracts",
    "OUTLIER": "harness.contracts",
    "Partition": "harness.contracts",
    "PseudoLabels": "harness.contracts",
    "Setup": "harness.contracts",
    "TrainIndex": "harness.contracts",
}

__all__ = [
    "CAMERA_LABELS",
    "OUTLIER",
    "USES_CAMERAS",
    "BackboneProvider",
    "Bank",
    "BankKind",
    "Batch",
    "Clusterer",
    "ClustererProvider",
    "ContractError",
    "DatasetProvider",
    "Draw",
    "Embeddings",
    "EpochContext",
    "HarnessError",
    "ImageTransformProvider",
    "LabelRefiner",
    "LabelRefinerProvider",
    "Loss",
    "LossProvider",
    "Memory",
    "MemoryProvider",
    "Modality",
    "Options",
    "Paper",
    "Partition",
    "PluginCard",
    "PluginError",
    "PseudoLabels",
    "Recipe",
    "Setup",
    "Stage",
    "TrainIndex",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
