"""TSMem, the two-step memory of ECUL.

Paper: R. Wu, Y. Yang, J. He, H. Hu, "Extended Cross-Modality United Learning for Unsupervised Visible-Infrared Person
Re-identification" (ECUL), arXiv 2412.19134, 2024.

Sources state that TSMem updates memories in two steps, first keeping diversity, later giving general proxies. The
rules, the momentum and the switch are reconstructions (ecul.md 3.3); the README beside this file tells them apart.
ECUL's clusterer, instance banks and cross-modality aggregation are not in this package. Importing it loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, NonNegativeInt

from harness import MemoryProvider, Options, Paper, PluginCard, hookimpl

PAPER = Paper(
    title="Extended Cross-Modality United Learning for Unsupervised Visible-Infrared Person Re-identification",
    venue="arXiv",
    year=2024,
    url="https://arxiv.org/abs/2412.19134",
)


class TsmemOptions(Options):
    """When the memory changes its rule, and the two rules."""

    switch: Literal["phase"] | NonNegativeInt = Field(
        "phase",
        description="phase: step 2 in the stages with cross-modality evidence; with a single stage, in the second "
        "half of its epochs. A number: step 2 from that epoch of such a stage (or of the single stage).",
    )
    step1_init: Literal["random_member", "mean"] = Field(
        "random_member", description="Prototypes at the start of an epoch of step 1."
    )
    step2_init: Literal["random_member", "mean"] = Field(
        "mean", description="Prototypes at the start of an epoch of step 2."
    )
    step2_momentum: float = Field(
        0.1, ge=0, le=1, description="Share of the old prototype that an update keeps (step 2)."
    )


PRESETS: dict[str, dict[str, Any]] = {"rendered": {"step2_momentum": 0.7}}


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
            PRESETS,
        )
