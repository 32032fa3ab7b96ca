"""CHCR: Cross-Modality Hierarchical Clustering and Refinement.

- ``chcr``: the whole method; ``chc`` and ``ipr``: its clusterer and its label refiner on their own.

Paper: Z. Pang, C. Wang, L. Zhao, Y. Liu, G. Sharma, "Cross-Modality Hierarchical Clustering and Refinement for
Unsupervised Visible-Infrared Person Re-Identification", IEEE TCSVT 34(4):2706-2718, 2024.

The paper's text was not at hand. The tone map follows public code of the first author; joint clustering without
warm-up, the purpose of CHC and of IPR, and a modality contrastive loss on centroids are stated in sources that cite it.
The merging rule, the form of the loss, IPR's score and threshold and all training values are reconstructions; the
README beside this file tells them apart. Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Paper,
    PluginCard,
    Recipe,
    hookimpl,
)
from harness_baseline import CONTRAST
from harness_chcr.options import (
    CHC_PRESETS,
    IPR_PRESETS,
    MODALITY_CONTRAST_PRESETS,
    TONE_PRESETS,
    ChcOptions,
    IprOptions,
    JointMemoryOptions,
    ModalityContrastOptions,
    ToneOptions,
)
from harness_chcr.recipes import chcr_recipe

PAPER = Paper(
    title="Cross-Modality Hierarchical Clustering and Refinement for Unsupervised Visible-Infrared Person "
    "Re-Identification",
    venue="IEEE TCSVT 34(4)",
    year=2024,
)

CHC = ClustererProvider(
    "chc",
    "harness_chcr.chc:ChcClusterer",
    "Joint clustering of both modalities; single-modality clusters merge across modalities.",
    ChcOptions,
    CHC_PRESETS,
)
IPR = LabelRefinerProvider(
    "ipr",
    "harness_chcr.ipr:InterChannelRefinement",
    "Drops labels on which the clusterings of the red, green and blue channels disagree.",
    IprOptions,
    IPR_PRESETS,
)


class Chcr:
    """The whole method: tone map, CHC, IPR, joint memory, cluster and modality contrast, its recipe."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Joint clustering from the first epoch, merged across modalities, refined by channels.", "method", PAPER
        )

    @staticmethod
    @hookimpl
    def harness_image_transforms() -> Iterator[ImageTransformProvider]:
        yield ImageTransformProvider(
            "tone",
            "harness_chcr.tone:ToneMap",
            "Visible images in grey, with a tone map that brings them closer to infrared ones.",
            ToneOptions,
            TONE_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield CHC

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield IPR

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield MemoryProvider(
            "joint-memory",
            "harness_chcr.memory:JointMemory",
            "The cluster memory with CHCR's momentum: a joint bank and one per modality.",
            JointMemoryOptions,
        )

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield CONTRAST
        yield LossProvider(
            "modality-contrast",
            "harness_chcr.losses:ModalityContrastLoss",
            "Contrast of every query with the other modality's prototypes.",
            ModalityContrastOptions,
            MODALITY_CONTRAST_PRESETS,
        )

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return chcr_recipe(dataset)


class Chc:
    """CHCR's clusterer on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("CHCR's clusterer: joint clusters, merged across modalities.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_clusterers() -> Iterator[ClustererProvider]:
        yield CHC


class Ipr:
    """CHCR's label refiner on its own."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("CHCR's label refiner: drops labels on which the colour channels disagree.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield IPR
