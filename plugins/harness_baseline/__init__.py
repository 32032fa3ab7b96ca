"""The common pipeline of first-generation methods, and progressive graph matching.

- ``baseline``: clustering per modality, cluster memory, cluster contrast (the first stage of ADCA and PGM, known as
  DCL).
- ``pgm``: association of visible and infrared clusters, and the alternate cross-modality contrast that uses it.

Papers: B. Yang, M. Ye, J. Chen, Z. Wu, "Augmented Dual-Contrastive Aggregation Learning for Unsupervised
Visible-Infrared Person Re-Identification" (ADCA, ACM MM 2022); Z. Wu and M. Ye, "Unsupervised Visible-Infrared Person
Re-Identification via Progressive Graph Matching and Alternate Learning" (CVPR 2023).

Known deviations are listed in the README beside this file. Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import (
    ClustererProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Paper,
    PluginCard,
    Recipe,
    hookimpl,
)
from harness_baseline.options import (
    CLUSTER_MEMORY_PRESETS,
    CONTRAST_PRESETS,
    CROSS_CONTRAST_PRESETS,
    MODALITY_DBSCAN_PRESETS,
    ClusterMemoryOptions,
    ContrastOptions,
    CrossContrastOptions,
    DbscanOptions,
    PgmOptions,
)
from harness_baseline.recipes import baseline_recipe, pgm_recipe

ADCA = Paper(
    title="Augmented Dual-Contrastive Aggregation Learning for Unsupervised Visible-Infrared Person Re-Identification",
    venue="ACM MM",
    year=2022,
    url="https://github.com/yangbincv/ADCA",
)
PGM = Paper(
    title="Unsupervised Visible-Infrared Person Re-Identification via Progressive Graph Matching and Alternate "
    "Learning",
    venue="CVPR",
    year=2023,
    url="https://github.com/zesenwu23/USL-VI-ReID",
)

CONTRAST = LossProvider(
    "contrast",
    "harness_baseline.losses:ContrastLoss",
    "Cluster contrast of every query with its own partition's prototypes.",
    ContrastOptions,
    CONTRAST_PRESETS,
)
"""Offered by several plugins, as one and the same provider."""


class Baseline:
    """Per-modality DBSCAN, cluster memory, cluster contrast: what the other methods build on."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("Clustering and contrast within each modality (DCL), with CMA as an option.", "method", ADCA)

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield ClustererProvider(
            "modality-dbscan",
            "harness_baseline.clusterer:ModalityDbscan",
            "k-reciprocal Jaccard distance and DBSCAN, visible and infrared images apart.",
            DbscanOptions,
            MODALITY_DBSCAN_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield MemoryProvider(
            "cluster-memory",
            "harness_baseline.memory:ClusterMemory",
            "One prototype per cluster: the mean at the start of an epoch, then updated with momentum.",
            ClusterMemoryOptions,
            CLUSTER_MEMORY_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield CONTRAST

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return baseline_recipe(dataset)


class Pgm:
    """Progressive graph matching of clusters and alternate cross contrastive learning."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("Links visible and infrared clusters by graph matching; contrasts across them.", "part", PGM)

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield LabelRefinerProvider(
            "pgm",
            "harness_baseline.pgm:ProgressiveGraphMatching",
            "Links visible and infrared clusters by an assignment between their centroids.",
            PgmOptions,
        )

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield CONTRAST
        yield LossProvider(
            "cross-contrast",
            "harness_baseline.losses:CrossContrastLoss",
            "Contrast of one modality's queries with the linked prototypes of the other.",
            CrossContrastOptions,
            CROSS_CONTRAST_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return pgm_recipe(dataset)
