"""Options of ADCA's parts, with the values that the released scripts execute as defaults. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness import Options


class AssociationOptions(Options):
    """How visible and infrared clusters are associated."""

    matching: Literal["votes", "mutual"] = Field(
        "votes",
        description="votes: similar pairs of images vote for their clusters, the most votes first (ADCA). mutual: "
        "clusters whose means are each other's nearest.",
    )
    threshold: float = Field(0.5, ge=-1, le=1, description="votes: smallest similarity of image pairs that vote.")


class MemoryOptions(Options):
    """How prototypes are made and kept up to date."""

    momentum: float = Field(0.1, ge=0, le=1, description="Share of the old prototype that an update keeps.")
    keep: float = Field(0.1, ge=0, le=1, description="Share of the visible prototype that the aggregation keeps.")
    renormalise: bool = Field(
        False, description="Give aggregated prototypes length 1 at once, not at their first update as in released code."
    )


class ContrastOptions(Options):
    """Contrast within each modality."""

    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    weight: float = Field(1.0, ge=0, description="Weight of every term.")


CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}
