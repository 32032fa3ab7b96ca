"""DMIC: Dynamic Modality-Camera Invariant Clustering.

- ``dmic``: the whole method.
- ``dnc``: its clusterer (MIE distance under the DNC schedules); ``mie``: the same with constant radius and sizes.
- ``hmcl``: its memory and loss.

Paper: Y. Yang, W. Hu, H. Hu, "Dynamic Modality-Camera Invariant Clustering for Unsupervised Visible-Infrared Person
Re-identification", arXiv 2412.08231, 2024; IEEE Transactions on Neural Networks and Learning Systems, 2025.

The schedules, weights, batches and epochs follow the paper; the form of the distance and of the image loss follow
public code of the same authors. The README beside this file tells apart what is stated and what is reconstructed, and
lists the deviations. Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import CAMERA_LABELS, ClustererProvider, LossProvider, MemoryProvider, Paper, PluginCard, Recipe, hookimpl
from harness_dmic.options import (
    DNC_PRESETS,
    HYBRID_CONTRAST_PRESETS,
    MIE_PRESETS,
    DncOptions,
    HmclMemoryOptions,
    HybridContrastOptions,
    MieOptions,
)
from harness_dmic.recipes import dmic_recipe

PAPER = Paper(
    title="Dynamic Modality-Camera Invariant Clustering for Unsupervised Visible-Infrared Person Re-identification",
    venue="IEEE TNNLS",
    year=2025,
    url="https://arxiv.org/abs/2412.08231",
)

MIE = ClustererProvider(
    "mie",
    "harness_dmic.clusterer:MieClusterer",
    "Clusters by a distance in which every modality and camera has the same share.",
    MieOptions,
    MIE_PRESETS,
    uses=(CAMERA_LABELS,),
)
DNC = ClustererProvider(
    "dnc",
    "harness_dmic.clusterer:DncClusterer",
    "MIE with DBSCAN's radius and the size of the expansion on a schedule.",
    DncOptions,
    DNC_PRESETS,
    uses=(CAMERA_LABELS,),
)
HMCL = MemoryProvider(
    "hmcl",
    "harness_dmic.memory:HybridMemory",
    "Banks of clusters and of single images, replaced by random queries.",
    HmclMemoryOptions,
)
HYBRID_CONTRAST = LossProvider(
    "hybrid-contrast",
    "harness_dmic.losses:HybridContrastLoss",
    "Contrast with clusters and with single images, per modality and over both.",
    HybridContrastOptions,
    HYBRID_CONTRAST_PRESETS,
)


class Dmic:
    """The whole method: MIE under DNC, HMCL's memory and loss, its recipe."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Camera- and modality-invariant clustering on a schedule, with contrast of clusters and images.",
            "method",
            PAPER,
        )

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield DNC

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield HMCL

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield HYBRID_CONTRAST

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return dmic_recipe(dataset)


class Dnc:
    """DMIC's clusterer on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("DMIC's clusterer: the MIE distance, radius and expansion on a schedule.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield DNC


class Mie:
    """DMIC's clusterer without its schedules."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("DMIC's clusterer without its schedules: the MIE distance and DBSCAN.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield MIE


class Hmcl:
    """DMIC's memory and loss on their own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "DMIC's memory and loss: banks of clusters and of images, contrasts with both.", "part", PAPER
        )

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield HMCL

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield HYBRID_CONTRAST
