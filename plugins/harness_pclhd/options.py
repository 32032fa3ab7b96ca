"""Options of PCLHD's parts, and their presets per dataset. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness import Options
from harness_baseline import DbscanOptions


class JointBranchOptions(DbscanOptions):
    """The joint clustering of both modalities, beside the clusterings of each (ALL in the released code)."""

    use_all: bool = Field(True, description="Whether there is a joint branch at all.")
    k1: int = Field(40, ge=1, description="Neighbours in the ranking list, the image itself included.")
    k2: int = Field(32, ge=1, description="Neighbours averaged in the query expansion, both modalities weighing alike.")


JOINT_BRANCH_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"eps": 0.3},
    # Chosen on dataset seed 9; k2 is the published share of k1.
    "rendered": {"k1": 16, "k2": 12, "eps": 0.5, "min_samples": 3, "centre_cameras": True},
}


class HardMemoryOptions(Options):
    """How centroid and hard prototypes are made and kept up to date."""

    momentum: float = Field(0.1, ge=0, le=1, description="Share of the old prototype that an update keeps.")
    hard_k: int = Field(1, ge=1, description="Farthest images of a cluster in a batch whose mean moves its hard one.")
    intra_stages: Literal["hybrid", "centroid"] = Field(
        "hybrid",
        description="In stages without cross-modality evidence: hybrid keeps centroid and hard prototypes (the "
        "released code), centroid keeps centroids alone, moved by every image in batch order (the paper's "
        "first stage).",
    )
    cross_update: Literal["off", "alternate", "both"] = Field(
        "alternate",
        description="When visible and infrared clusters are linked: which modality's images also update the linked "
        "prototypes of the other one. Set it as the direction of hard-contrast.",
    )
    memory_grad: Literal["clean", "released"] = Field(
        "clean",
        description="clean: updates after the optimiser step. released: inside the backward pass, as the released code "
        "does, where an update by one loss term disturbs the gradient of another.",
    )


HARD_MEMORY_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"cross_update": "both"}}


class HardContrastOptions(Options):
    """Contrast with centroid and hard prototypes: own modality, other modality, joint clusters."""

    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    centroid_weight: float = Field(0.5, ge=0, description="Weight of the contrast with centroids.")
    hard_weight: float = Field(0.5, ge=0, description="Weight of the contrast with hard prototypes.")
    margin: float = Field(
        0.2, ge=0, description="The batch's mean contrast with centroids counts only by what it exceeds this."
    )
    cross_weight: float = Field(0.25, ge=0, description="Weight of the contrast with the other modality's prototypes.")
    joint_weight: float = Field(1.0, ge=0, description="Weight of the contrasts with joint prototypes.")
    direction: Literal["alternate", "both"] = Field(
        "alternate",
        description="Across modalities: alternate has visible images in even epochs of a stage, infrared images in odd "
        "ones. both: both always.",
    )


HARD_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1, "direction": "both"}}


class DynamicContrastOptions(Options):
    """Contrast with dynamic prototypes: images of every cluster drawn at random, as the teacher sees them."""

    dpcl_query: Literal["online", "ema"] = Field(
        "online",
        description="online: the encoder's embeddings are the queries, and after a step the teacher's replace the "
        "prototypes. ema: the teacher's embeddings are the queries, as in the released code, where the term has no "
        "gradient and the prototypes never change within an epoch.",
    )
    samples: int = Field(16, ge=1, description="Dynamic prototypes of a cluster (S).")
    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    weight: float = Field(1.0, ge=0, description="Weight of every term.")


DYNAMIC_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1, "samples": 4}}


class ReleasedHardMemoryOptions(HardMemoryOptions):
    """As the released code has it."""

    memory_grad: Literal["clean", "released"] = Field(
        "released", description=HardMemoryOptions.model_fields["memory_grad"].description
    )


class PaperHardMemoryOptions(ReleasedHardMemoryOptions):
    """With the paper's first stage."""

    intra_stages: Literal["hybrid", "centroid"] = Field(
        "centroid", description=HardMemoryOptions.model_fields["intra_stages"].description
    )


class ReleasedDynamicContrastOptions(DynamicContrastOptions):
    """As the released code has it."""

    dpcl_query: Literal["online", "ema"] = Field(
        "ema", description=DynamicContrastOptions.model_fields["dpcl_query"].description
    )
