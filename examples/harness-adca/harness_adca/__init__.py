"""ADCA: Augmented Dual-Contrastive Aggregation learning, in a package of its own.

Paper: B. Yang, M. Ye, J. Chen, Z. Wu, "Augmented Dual-Contrastive Aggregation Learning for Unsupervised
Visible-Infrared Person Re-Identification", ACM MM 2022. The README lists every known deviation. Of the harness, this
package imports what ``harness.__all__`` names and nothing else. Importing it loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import LabelRefinerProvider, LossProvider, MemoryProvider, Paper, PluginCard, Recipe, hookimpl
from harness_adca.options import CONTRAST_PRESETS, AssociationOptions, ContrastOptions, MemoryOptions
from harness_adca.recipes import adca_recipe

PAPER = Paper(
    title="Augmented Dual-Contrastive Aggregation Learning for Unsupervised Visible-Infrared Person Re-Identification",
    venue="ACM MM",
    year=2022,
    url="https://github.com/yangbincv/ADCA",
)


class Adca:
    """Association of clusters across modalities, a memory that aggregates the associated ones, dual contrast."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Contrast within each modality; visible prototypes take in associated infrared ones.",
            "method",
            PAPER,
            api=1,
        )

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield LabelRefinerProvider(
            "adca-association",
            "harness_adca.association:Association",
            "Links visible and infrared clusters one to one, by votes of image pairs or as mutual nearest neighbours.",
            AssociationOptions,
        )

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield MemoryProvider(
            "adca-memory",
            "harness_adca.memory:AggregatedMemory",
            "One prototype per cluster; once per epoch, visible ones take in the infrared ones linked to them.",
            MemoryOptions,
        )

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield LossProvider(
            "adca-contrast",
            "harness_adca.losses:DualContrast",
            "Contrast of every image with the prototypes of its own modality.",
            ContrastOptions,
            CONTRAST_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return adca_recipe(dataset)
