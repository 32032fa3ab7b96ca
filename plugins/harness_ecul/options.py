"""Options of ECUL's parts, and their presets per dataset. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from harness import Options
from harness_dmic.options import DNC_PRESETS, EpsSchedule, MieOptions


class EmccOptions(EpsSchedule, MieOptions):
    """MIE's clustering with a wider search that takes a limited number of neighbours from each camera."""

    k1_intra: int = Field(
        30, ge=1, description="Neighbours in the ranking list within a modality, the image itself included."
    )
    k2_intra: int = Field(6, ge=1, description="Neighbours taken from one camera, within a modality.")
    k3_intra: PositiveInt | None = Field(
        None, description="Neighbours looked at within a modality, k2_intra or more; None: twice k2_intra."
    )
    k2_joint: int = Field(16, ge=1, description="Neighbours taken from one camera, over both modalities.")
    k3_joint: PositiveInt | None = Field(
        None, description="Neighbours looked at over both modalities, k2_joint or more; None: k1_joint."
    )
    eps: float = Field(0.6, gt=0, le=1, description="Largest Jaccard distance between neighbours in DBSCAN.")
    rule: Literal["cap", "two_tier"] = Field(
        "cap",
        description="cap: the k3 nearest, but no more than k2 of one camera. two_tier: the k2 nearest, and of the rest "
        "of the k3 nearest those of cameras that are not among these.",
    )
    dnc: bool = Field(False, description="Change the radius as DMIC does, from eps on; else it is constant.")

    @model_validator(mode="after")
    def _extends(self) -> EmccOptions:
        for scope, k2, k3 in (("intra", self.k2_intra, self.width_intra), ("joint", self.k2_joint, self.width_joint)):
            if k3 < k2:
                raise ValueError(
                    f"k3_{scope} is {k3} and k2_{scope} is {k2}; no more than k3 neighbours are looked at, so k3 must "
                    "be at least k2"
                )
        return self

    @property
    def width_intra(self) -> int:
        """Neighbours looked at within a modality."""
        return self.k3_intra or 2 * self.k2_intra

    @property
    def width_joint(self) -> int:
        """Neighbours looked at over both modalities."""
        return self.k3_joint or self.k1_joint


EMCC_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {
        **{name: DNC_PRESETS["regdb"][name] for name in ("eps", "eps_shrink", "eps_low", "eps_growth", "k1_joint")},
        "k2_intra": 3,
        "k2_joint": 10,
    },
    "rendered": {
        "k1_intra": 14,
        "k1_joint": 28,
        "k2_intra": 2,
        "k3_intra": 8,
        "k2_joint": 2,
        "eps": 0.35,
        "eps_shrink": DNC_PRESETS["rendered"]["eps_shrink"],
        "eps_growth": DNC_PRESETS["rendered"]["eps_growth"],
        "min_samples": 3,
        "centre_cameras": True,
    },
}


class TsmemOptions(Options):
    """When the memory changes its rule, the two rules, and what prototypes take from the other modality."""

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
    instance_selection: Literal["cma", "bidirectional_mean", "off"] = Field(
        "off",
        description="Once per epoch of a stage with cross-modality evidence. cma: similar image pairs vote for pairs "
        "of clusters, whose prototypes are mixed. bidirectional_mean: every cluster's images that resemble a prototype "
        "of the other modality move the one that they resemble most.",
    )
    selection_threshold: float = Field(
        0.5, ge=-1, le=1, description="Similarity from which an image counts (instance_selection)."
    )
    cma_keep: float = Field(0.1, ge=0, le=1, description="Share of the own prototype that cma keeps (a).")
    cma_direction: Literal["r_to_v", "both"] = Field(
        "r_to_v", description="r_to_v: infrared prototypes flow into visible ones. both: and conversely."
    )
    cma_renorm: bool = Field(
        False, description="Renormalise prototypes after instance selection; else their next update does."
    )


TSMEM_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"step2_momentum": 0.7}}


class UnitedMemoryOptions(TsmemOptions):
    """TSMem with cross-modality memory aggregation."""

    instance_selection: Literal["cma", "bidirectional_mean", "off"] = Field(
        "cma", description="As ``tsmem.instance_selection``."
    )


class UnitedContrastOptions(Options):
    """Weights of ECUL's terms; that of the cluster terms within a modality is 1."""

    w_instance: float = Field(1.0, ge=0, description="Weight of the image terms within a modality (w_I).")
    w_joint: float = Field(1.0, ge=0, description="Weight of both terms over both modalities (w_m).")
    w_joint_instance: float = Field(0.1, ge=0, description="Weight of the image term among these two (w_I').")
    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    inter_instance_reduction: Literal["joint", "per_modality"] = Field(
        "joint",
        description="Image term over both modalities. joint: the mean over all queries. per_modality: the visible "
        "queries' mean plus the infrared ones'.",
    )


UNITED_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}
