"""PCLHD: Progressive Contrastive Learning with Hard and Dynamic Prototypes.

- ``pclhd``: the whole method as its released code runs it; ``pclhd-paper``: with the first stage and the dynamic
  prototypes as the paper presents them.
- ``hpcl``, ``dpcl``, ``joint-branch``: hard prototypes, dynamic prototypes and the joint clustering on their own.

Paper: J. Shi, X. Yin, Y. Zhang, Z. Zhang, Y. Xie, Y. Qu, "Learning Commonality, Divergence and Variety for Unsupervised
Visible-Infrared Person Re-identification", NeurIPS 2024.

The paper's equations were not at hand: the parts follow its released code, the idea of three prototypes and of two
stages its abstract and figure. The README beside this file tells them apart and lists every known deviation. Importing
this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import LabelRefinerProvider, LossProvider, MemoryProvider, Options, Paper, PluginCard, Recipe, hookimpl
from harness_baseline import Pgm
from harness_pclhd.options import (
    DYNAMIC_CONTRAST_PRESETS,
    HARD_CONTRAST_PRESETS,
    HARD_MEMORY_PRESETS,
    JOINT_BRANCH_PRESETS,
    DynamicContrastOptions,
    HardContrastOptions,
    HardMemoryOptions,
    JointBranchOptions,
    PaperHardMemoryOptions,
    ReleasedDynamicContrastOptions,
    ReleasedHardMemoryOptions,
)
from harness_pclhd.recipes import pclhd_recipe

PAPER = Paper(
    title="Learning Commonality, Divergence and Variety for Unsupervised Visible-Infrared Person Re-identification",
    venue="NeurIPS",
    year=2024,
    url="https://arxiv.org/abs/2402.19026",
)

JOINT_BRANCH = LabelRefinerProvider(
    "joint-branch",
    "harness_pclhd.joint:JointBranch",
    "Adds a joint clustering of both modalities beside those of each.",
    JointBranchOptions,
    JOINT_BRANCH_PRESETS,
)
HARD_CONTRAST = LossProvider(
    "hard-contrast",
    "harness_pclhd.hard:HardContrastLoss",
    "Contrast with centroid and hard prototypes of the own modality, the linked other one, and joint clusters.",
    HardContrastOptions,
    HARD_CONTRAST_PRESETS,
)


def hard_memory(options: type[Options]) -> MemoryProvider:
    """The memory of centroid and hard prototypes, with these defaults."""
    return MemoryProvider(
        "hard-memory",
        "harness_pclhd.memory:HardMemory",
        "Two prototypes per cluster: the mean, and one that follows the images farthest from it.",
        options,
        HARD_MEMORY_PRESETS,
    )


def dynamic_contrast(options: type[Options]) -> LossProvider:
    """The loss on dynamic prototypes, with these defaults."""
    return LossProvider(
        "dynamic-contrast",
        "harness_pclhd.dynamic:DynamicContrastLoss",
        "Contrast with images of every cluster drawn at random, as the teacher sees them.",
        options,
        DYNAMIC_CONTRAST_PRESETS,
        needs=("teacher",),
    )


class Pclhd:
    """The whole method as its released code runs it."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Centroid, hard and dynamic prototypes; graph matching; a joint branch; a teacher.", "method", PAPER
        )

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield from Pgm.harness_label_refiners()
        yield JOINT_BRANCH

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield hard_memory(ReleasedHardMemoryOptions)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield HARD_CONTRAST
        yield dynamic_contrast(ReleasedDynamicContrastOptions)

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return pclhd_recipe(dataset)


class PclhdPaper:
    """The whole method with the first stage and the dynamic prototypes as the paper presents them."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "PCLHD as the paper presents it: centroids alone at first, dynamic prototypes that train.", "method", PAPER
        )

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield from Pclhd.harness_label_refiners()

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield hard_memory(PaperHardMemoryOptions)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield HARD_CONTRAST
        yield dynamic_contrast(DynamicContrastOptions)

    @staticmethod
    @hookimpl
    def harness_recipe(dataset: str) -> Recipe:
        return pclhd_recipe(dataset)


class Hpcl:
    """Hard prototypes on their own: the memory and its loss."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("PCLHD's centroid and hard prototypes: the memory and its loss.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_memories() -> Iterator[MemoryProvider]:
        yield hard_memory(HardMemoryOptions)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield HARD_CONTRAST


class Dpcl:
    """Dynamic prototypes on their own, beside any memory."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("PCLHD's dynamic prototypes: a loss beside any memory and other losses.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_losses() -> Iterator[LossProvider]:
        yield dynamic_contrast(DynamicContrastOptions)


class JointBranch:
    """The joint clustering on its own, beside any clusterer of the two modalities."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("PCLHD's joint clustering, as a second batch of every iteration.", "part", PAPER)

    @staticmethod
    @hookimpl
    def harness_label_refiners() -> Iterator[LabelRefinerProvider]:
        yield JOINT_BRANCH
