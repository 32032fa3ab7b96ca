"""A plugin-based benchmark harness for unsupervised visible-infrared person re-identification.

Everything a plugin author needs is named in ``__all__``, and a name in it is kept or deprecated, never just dropped;
``harness.testing`` has what a plugin's own tests need. Names that need torch are loaded on first use, so that
``import harness`` (and with it ``harness --help`` and ``harness plugins``) stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

from harness.errors import ContractError, HarnessError, PluginError, SettingsError, TrainingError
from harness.hookspecs import hookimpl
from harness.observations import (
    ObservedEpoch,
    ObservedFailure,
    ObservedResult,
    ObservedRun,
    ReportedRun,
    ReportSection,
)
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
    "balanced_means": "harness.clustering.centroids",
    "Bank": "harness.contracts",
    "BankKind": "harness.contracts",
    "Batch": "harness.contracts",
    "centre_by_camera": "harness.clustering.centring",
    "cluster_contrast": "harness.contrast:contrast",
    "cluster_means": "harness.clustering.centroids",
    "Clusterer": "harness.contracts",
    "compact": "harness.contracts",
    "dbscan": "harness.clustering.dbscan",
    "Draw": "harness.contracts",
    "Embeddings": "harness.contracts",
    "EpochContext": "harness.contracts",
    "follow": "harness.contracts",
    "greedy_vote_matching": "harness.matching",
    "hard_update": "harness.memory_updates",
    "hybrid_update": "harness.memory_updates",
    "k_reciprocal_jaccard": "harness.clustering.jaccard",
    "LabelRefiner": "harness.contracts",
    "Loss": "harness.contracts",
    "Memory": "harness.contracts",
    "Modality": "harness.contracts",
    "momentum_update": "harness.memory_updates",
    "multi_centre_update": "harness.memory_updates",
    "mutual_nearest_clusters": "harness.matching",
    "NO_PARTNER": "harness.matching",
    "OUTLIER": "harness.contracts",
    "Part": "harness.contracts",
    "Partition": "harness.contracts",
    "progressive_graph_matching": "harness.matching",
    "PseudoLabels": "harness.contracts",
    "random_replacement": "harness.memory_updates",
    "Setup": "harness.contracts",
    "TrainIndex": "harness.contracts",
}
"""Public name to module, or ``module:attribute`` where the module itself bears the name."""

__all__ = [
    "CAMERA_LABELS",
    "NO_PARTNER",
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
    "ObservedEpoch",
    "ObservedFailure",
    "ObservedResult",
    "ObservedRun",
    "Options",
    "Paper",
    "Part",
    "Partition",
    "PluginCard",
    "PluginError",
    "PseudoLabels",
    "Recipe",
    "ReportSection",
    "ReportedRun",
    "SettingsError",
    "Setup",
    "Stage",
    "TrainIndex",
    "TrainingError",
    "__version__",
    "balanced_means",
    "centre_by_camera",
    "cluster_contrast",
    "cluster_means",
    "compact",
    "dbscan",
    "follow",
    "greedy_vote_matching",
    "hard_update",
    "hookimpl",
    "hybrid_update",
    "k_reciprocal_jaccard",
    "momentum_update",
    "multi_centre_update",
    "mutual_nearest_clusters",
    "progressive_graph_matching",
    "random_replacement",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
