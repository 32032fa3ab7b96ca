"""HIL: Hierarchical Identity Learning.

- ``hil``: the whole method, with SDCL's first epochs as its warm-up.
- ``brst``, ``mccl``, ``neighbours``: its label refiner, its multi-centre memory and loss, its neighbour loss on their
  own.

Paper: H. Shi, Y. Wang, D. Cheng, L. He, N. Wang, X. Gao, "Hierarchical Identity Learning for Unsupervised
Visible-Infrared Person Re-Identification", arXiv 2509.11587, 2025. Its warm-up, encoder and neighbour losses come from
B. Yang, J. Chen, M. Ye, "Shallow-Deep Collaborative Learning for Unsupervised Visible-Infrared Person
Re-Identification" (SDCL, CVPR 2024).

Of the paper only the abstract and the first lines were at hand: the parts follow its released code. The README beside
this file tells apart what is stated, released and ours, and lists every known deviation. Importing this package loads
no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import LabelRefinerProvider, LossProvider, MemoryProvider, Options, Paper, PluginCard, Recipe, hookimpl
from harness_hil.options import (
    BRANCH_CONTRAST_PRESETS,
    BRST_PRESETS,
    MULTI_CENTRE_MEMORY_PRESETS,
    NEIGHBOUR_CONTRAST_PRESETS,
    BranchContrastOptions,
    BrstOptions,
    MultiCentreContrastOptions,
    MultiCentreMemoryOptions,
    NeighbourContrastOptions,
    ReleasedMultiCentreMemoryOptions,
    ReleasedNeighbourContrastOptions,
)
from harness_hil.recipes import hil_recipe

PAPER = Paper(
    title="Hierarchical Identity Learning for Unsupervised Visible-Infrared Person Re-Identification",
    venue="arXiv",
    year=2025,
    url="https://arxiv.org/abs/2509.11587",
)

BRST = LabelRefinerProvider(
    "brst",
    "harness_hil.brst:ReverseSelection",
    "Carries labels over to the other modality where prototype and image choose each other.",
    BrstOptions,
    BRST_PRESETS,
)
MCCL = LossProvider(
    "mccl",
    "harness_hil.mccl:MultiCentreContrastLoss",
    "Draws queries to all centres of their nearest cluster, away from the nearest of every other.",
    MultiCentreContrastOptions,
)


ORDER_OF_IMAGES = {
    "multi-centre-memory.does_not_depend_on_the_order_of_images": "k-means starts from images that it draws by their "
    "place, so the same images in another order may be split into other sub-centres."
}
"""The check of the conformance kit that the memory is known to fail."""


def multi_centre_memory(options: type[Options]) -> MemoryProvider:
    """The memory of centroids and sub-centres, with these defaults."""
    return MemoryProvider(
        "multi-centre-memory",
        "harness_hil.memory:MultiCentreMemory",
        "A centroid per cluster, moved with momentum, and sub-centres by k-means.",
        options,
        MULTI_CENTRE_MEMORY_PRESETS,
    )


def neighbour_contrast(options: type[Options]) -> LossProvider:
    """The loss on single images, with these defaults."""
    return LossProvider(
        "neighbour-contrast",
        "harness_hil.neighbours:NeighbourContrastLoss",
        "Contrast with single images that resemble a query in every embedding, within and across modalities.",
        options,
        NEIGHBOUR_CONTRAST_PRESETS,
    )


class Hil:
    """The whole method as its released code runs it."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Several centres per cluster, labels carried across modalities, deep and shallow embeddings.",
            "method",
            PAPER,
            expected_failures=ORDER_OF_IMAGES,
        )

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield BRST

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield multi_centre_memory(ReleasedMultiCentreMemoryOptions)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield LossProvider(
            "branch-contrast",
            "harness_hil.losses:BranchContrastLoss",
            "Cluster contrast of every modality and embedding with shared centroids.",
            BranchContrastOptions,
            BRANCH_CONTRAST_PRESETS,
        )
        yield MCCL
        yield neighbour_contrast(ReleasedNeighbourContrastOptions)

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return hil_recipe(dataset)


class Brst:
    """HIL's label refiner on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("HIL's label refiner: labels carried over from one modality to the other.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield BRST


class Mccl:
    """HIL's multi-centre memory and its loss on their own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "HIL's memory of several centres per cluster, and the contrast with them.",
            "part",
            PAPER,
            expected_failures=ORDER_OF_IMAGES,
        )

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield multi_centre_memory(MultiCentreMemoryOptions)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield MCCL


class Neighbours:
    """The neighbour loss that HIL takes from SDCL, on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("The neighbour loss of SDCL and HIL, on memories of single images.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield neighbour_contrast(NeighbourContrastOptions)
