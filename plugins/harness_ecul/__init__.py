"""ECUL: Extended Cross-Modality United Learning.

- ``ecul``: the whole method.
- ``emcc``: its clusterer; ``tsmem``: its two-step memory, on their own.

Paper: R. Wu, Y. Yang, J. He, H. Hu, "Extended Cross-Modality United Learning for Unsupervised Visible-Infrared Person
Re-identification", arXiv 2412.19134, 2024.

The paper's method section was not at hand. Sources state what EMCC, TSMem and the aggregation of memories are for, and
which kinds of contrast there are; every rule and value is a reconstruction from public code of the same group. The
README beside this file tells them apart. Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import CAMERA_LABELS, ClustererProvider, LossProvider, MemoryProvider, Paper, PluginCard, Recipe, hookimpl
from harness_dmic.recipes import dmic_recipe
from harness_ecul.options import (
    EMCC_PRESETS,
    TSMEM_PRESETS,
    UNITED_CONTRAST_PRESETS,
    EmccOptions,
    TsmemOptions,
    UnitedContrastOptions,
    UnitedMemoryOptions,
)

PAPER = Paper(
    title="Extended Cross-Modality United Learning for Unsupervised Visible-Infrared Person Re-identification",
    venue="arXiv",
    year=2024,
    url="https://arxiv.org/abs/2412.19134",
)

EMCC = ClustererProvider(
    "emcc",
    "harness_ecul.emcc:EmccClusterer",
    "Clusters by a wide search that takes a limited number of neighbours from each camera.",
    EmccOptions,
    EMCC_PRESETS,
    uses=(CAMERA_LABELS,),
)


class Ecul:
    """The whole method: EMCC, TSMem with instance selection, contrast with clusters and images, its recipe."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Extended camera-invariant clustering, a memory in two steps, contrast of clusters and images.",
            "method",
            PAPER,
        )

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield EMCC

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield MemoryProvider(
            "united-memory",
            "harness_ecul.tsmem:TwoStepMemory",
            "TSMem, whose visible prototypes take in matched infrared ones once per epoch.",
            UnitedMemoryOptions,
            TSMEM_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield LossProvider(
            "united-contrast",
            "harness_ecul.losses:UnitedContrastLoss",
            "Contrast with clusters and with single images, per modality and over both.",
            UnitedContrastOptions,
            UNITED_CONTRAST_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return dmic_recipe(dataset)


class Emcc:
    """ECUL's clusterer on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("ECUL's clusterer: a wide search, filtered by camera and modality.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield EMCC


class Tsmem:
    """ECUL's memory on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("ECUL's memory: first diverse prototypes, later general ones.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield MemoryProvider(
            "tsmem",
            "harness_ecul.tsmem:TwoStepMemory",
            "Random members and random replacement first, means and momentum later.",
            TsmemOptions,
            TSMEM_PRESETS,
        )
