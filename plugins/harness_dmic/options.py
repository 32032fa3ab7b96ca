"""Options of DMIC's parts, and their presets per dataset. Loads no torch.

The paper's symbol of each schedule value is given in its description.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from harness import USES_CAMERAS, Options

Form = Literal["nested", "flat", "plain"]


class MieOptions(Options):
    """Clustering within and across modalities by a distance in which all cameras have equal shares."""

    k1_intra: int = Field(
        40, ge=1, description="Neighbours in the ranking list within a modality, the image itself included."
    )
    k1_joint: int = Field(
        40, ge=1, description="Neighbours in the ranking list over both modalities, the image itself included."
    )
    k2_intra: int = Field(6, ge=1, description="Neighbours averaged in the query expansion within a modality.")
    k2_joint: int = Field(32, ge=1, description="Neighbours averaged in the query expansion over both modalities (e3).")
    eps: float = Field(0.6, gt=0, le=1, description="Largest Jaccard distance between neighbours in DBSCAN.")
    min_samples: int = Field(4, ge=1, description="Neighbours that make an image a core point, itself included.")
    expansion: Form = Field(
        "nested",
        description="nested: mean over modalities of the mean over cameras of the mean over images. flat: mean over "
        "cameras, whatever their modality. plain: mean over images, the ordinary expansion.",
    )
    joint_require_mixed: bool = Field(
        False, description="Make images outliers whose joint cluster holds one modality only."
    )
    centre_cameras: bool = Field(
        False,
        description="Subtract every camera's mean feature (and with it the modality's) and renormalise, first.",
        json_schema_extra=USES_CAMERAS,
    )


class EpsSchedule(Options):
    """DNC's schedule of the radius: it shrinks, and in stages with cross-modality evidence then grows again."""

    eps: float = Field(0.6, gt=0, le=1, description="Radius of DBSCAN at the start of every stage (pi2).")
    eps_shrink: float = Field(0.5, gt=0, le=1, description="Factor by which the radius shrinks (sn).")
    eps_low: float = Field(
        0.3, gt=0, le=1, description="Radius from which it grows, in stages with cross-modality evidence (pi1)."
    )
    eps_growth: float = Field(2.0, ge=1, description="Factor by which the radius grows (sb).")
    shrink_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the epochs of a stage with cross-modality evidence in which the radius shrinks (10 of "
        "50 in the paper), at least one epoch.",
    )


class DncOptions(EpsSchedule, MieOptions):
    """MIE with the radius and the number of neighbours averaged on a schedule."""

    k2_intra: int = Field(
        6,
        ge=1,
        description="Neighbours averaged in the query expansion within a modality at the start of every stage (e1).",
    )
    k2_growth: float = Field(3.0, ge=1, description="Factor by which k2_intra grows within a stage (sk = e2 / e1).")
    k2_horizon: PositiveInt | None = Field(
        None, description="Epochs that this growth takes; None: those of the stage (50 in the paper)."
    )


MIE_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"eps": 0.3, "k1_intra": 38, "k1_joint": 38, "k2_joint": 18},
    "rendered": {
        "k1_intra": 14,
        "k1_joint": 28,
        "k2_joint": 16,
        "eps": 0.4,
        "min_samples": 3,
        "centre_cameras": True,
    },
}
DNC_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {**MIE_PRESETS["regdb"], "eps_shrink": 2 / 3, "eps_low": 0.2, "eps_growth": 1.5, "k2_growth": 2.0},
    # RegDB's factors between radii that suit this dataset: at 0.6 its joint clusters run together.
    "rendered": {
        **MIE_PRESETS["rendered"],
        "eps": 0.45,
        "eps_shrink": 2 / 3,
        "eps_low": 0.3,
        "eps_growth": 1.5,
        "k2_intra": 4,
        "k2_growth": 2.0,
    },
}


class HmclMemoryOptions(Options):
    """How HMCL's banks of clusters and of images are kept."""

    momentum: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the old row that an update keeps (lambda). 0: a random query of the batch replaces it.",
    )
    reinit_instance_bank: Literal["epoch", "phase"] = Field(
        "epoch",
        description="When the banks of images start anew from the features. phase: once per stage; labels are "
        "refreshed every epoch, and the rows are part of every checkpoint.",
    )


class HybridContrastOptions(Options):
    """Weights of HMCL's terms."""

    phi1_intra: float = Field(0.1, ge=0, description="Weight of the image terms within a modality; 0 leaves them out.")
    phi1_inter: float = Field(0.1, ge=0, description="Weight of the image term over both modalities.")
    phi2_intra: float = Field(1.0, ge=0, description="Weight of the cluster terms within a modality.")
    phi2_inter: float = Field(1.0, ge=0, description="Weight of the cluster term over both modalities.")
    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    inter_instance_reduction: Literal["joint", "per_modality"] = Field(
        "joint",
        description="Image term over both modalities. joint: the mean over all queries. per_modality: the visible "
        "queries' mean plus the infrared ones'.",
    )


HYBRID_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}
