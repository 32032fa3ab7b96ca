"""Options of CHCR's parts, and their presets per dataset. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness import Options
from harness_baseline import ClusterMemoryOptions, DbscanOptions


class ToneOptions(Options):
    """Grey conversion and tone map of visible images."""

    tone: Literal["gamma", "linear", "none"] = Field(
        "gamma", description="gamma: 255 (Y/255)^gamma. linear: k Y + b, clipped. none: images are left as they are."
    )
    gamma: float = Field(0.5, gt=0, description="Exponent (tone = gamma).")
    k: float = Field(-1.0, description="Slope (tone = linear).")
    b: float = Field(255.0, description="Offset in grey levels (tone = linear).")


TONE_PRESETS: dict[str, dict[str, Any]] = {"regdb": {"tone": "linear"}}

_JOINT_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"eps": 0.3},
    "rendered": {"k1": 28, "k2": 4, "min_samples": 3, "centre_cameras": True},
}


class ChcOptions(DbscanOptions):
    """Joint clustering of both modalities, and merging of single-modality clusters across them."""

    mode: Literal["merge", "bottom_up", "off"] = Field(
        "merge",
        description="merge: joint clustering, then merging of its single-modality clusters. bottom_up: each modality "
        "clustered apart, then merging. off: joint clustering alone.",
    )
    theta: float = Field(0.5, ge=0, le=2, description="Largest cosine distance of centroids that merge.")
    rounds: int = Field(1, ge=1, description="Rounds of merging, with new centroids in each.")
    attach_to_mixed: bool = Field(
        False, description="Let single-modality clusters also merge into clusters that hold both modalities."
    )
    apart_k1: int = Field(
        30, ge=1, description="k1 where the modalities are clustered apart (mode = bottom_up, intra_stages = apart)."
    )
    intra_stages: Literal["joint", "apart"] = Field(
        "joint",
        description="In stages without cross-modality evidence: joint clusters jointly all the same (CHCR has no "
        "warm-up); apart clusters each modality apart and merges nothing.",
    )


CHC_PRESETS: dict[str, dict[str, Any]] = {
    **_JOINT_PRESETS,
    "rendered": {**_JOINT_PRESETS["rendered"], "apart_k1": 14},
}


class IprOptions(DbscanOptions):
    """Dropping labels on which the clusterings of the colour channels disagree."""

    delta: float = Field(0.5, ge=0, le=1, description="Smallest agreement with which a label is kept.")
    score: Literal["triple", "mean_pairwise", "vs_main"] = Field(
        "triple",
        description="triple: intersection over union of the three channels' clusters. mean_pairwise: mean over "
        "channel pairs. vs_main: mean of each channel against the labels being refined.",
    )
    scope: Literal["all", "visible_only"] = Field("all", description="Which images may lose their label.")
    start_epoch: int = Field(0, ge=0, description="First epoch of the run in which labels are refined.")
    every: int = Field(1, ge=1, description="Refine every so many epochs.")
    min_cluster_after: int = Field(2, ge=1, description="Clusters left with fewer images dissolve.")
    use_chc: bool = Field(False, description="Merge the channels' clusters across modalities, as CHC does.")
    theta: float = Field(0.5, ge=0, le=2, description="Largest cosine distance of centroids that merge (use_chc).")
    rounds: int = Field(1, ge=1, description="Rounds of merging (use_chc).")


IPR_PRESETS: dict[str, dict[str, Any]] = {
    **_JOINT_PRESETS,
    # Chosen on dataset seed 9: the default (triple, 0.5, from the first epoch) drops most labels there.
    "rendered": {**_JOINT_PRESETS["rendered"], "score": "mean_pairwise", "delta": 0.2, "start_epoch": 4},
}


class JointMemoryOptions(ClusterMemoryOptions):
    """The cluster memory with CHCR's momentum."""

    momentum: float = Field(0.2, ge=0, le=1, description="Share of the old prototype that an update keeps.")
    balanced_mean: bool = Field(
        False, description="Start joint prototypes from the mean of the two modality means, not from the mean of all."
    )


class ModalityContrastOptions(Options):
    """Contrast with the other modality's prototypes of the same cluster."""

    weight: float = Field(1.0, ge=0, description="Weight of the term.")
    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    form: Literal["opposite", "proxy", "centroid"] = Field(
        "opposite",
        description="opposite: a query against the other modality's prototypes. proxy: against those of both "
        "modalities, both of its cluster being positives. centroid: the batch's cluster means of the two modalities "
        "against each other.",
    )


MODALITY_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}
