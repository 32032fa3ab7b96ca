"""Options of the baseline's parts, and their presets per dataset. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness import USES_CAMERAS, Options


class DbscanOptions(Options):
    """How images are grouped by k-reciprocal Jaccard distance and DBSCAN; shared by every clusterer built on them."""

    k1: int = Field(30, ge=1, description="Neighbours in the ranking list, the image itself included.")
    k2: int = Field(6, ge=1, description="Neighbours averaged in the query expansion; 1 = no expansion.")
    eps: float = Field(0.6, gt=0, le=1, description="Largest Jaccard distance between neighbours in DBSCAN.")
    min_samples: int = Field(4, ge=1, description="Neighbours that make an image a core point, itself included.")
    centre_cameras: bool = Field(
        False,
        description="Subtract every camera's mean feature (and with it the modality's) and renormalise, first.",
        json_schema_extra=USES_CAMERAS,
    )


MODALITY_DBSCAN_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"eps": 0.3},
    "rendered": {"k1": 14, "k2": 4, "min_samples": 3, "centre_cameras": True},
}


class ClusterMemoryOptions(Options):
    """How the baseline's prototypes are made and kept up to date."""

    mode: Literal["mean", "hard", "mean-then-hard"] = Field(
        "mean",
        description="mean: every image updates its prototype, in batch order. hard: only the least similar image of "
        "each cluster does. mean-then-hard: hard in stages that use cross-modality evidence, mean in the others.",
    )
    momentum: float = Field(0.1, ge=0, le=1, description="Share of the old prototype that an update keeps.")
    association: Literal["off", "cma"] = Field(
        "off",
        description="cma: once per epoch of a stage with cross-modality evidence, visible prototypes take in the "
        "infrared ones that they are matched with (ADCA).",
    )
    association_threshold: float = Field(0.5, ge=-1, le=1, description="Smallest similarity of image pairs that vote.")
    association_keep: float = Field(0.1, ge=0, le=1, description="Share of the visible prototype that CMA keeps.")
    cross_update: Literal["off", "alternate", "both"] = Field(
        "alternate",
        description="When visible and infrared clusters are linked: which modality's images also update the linked "
        "prototypes of the other one. Set it as the direction of cross-contrast.",
    )
    memory_grad: Literal["clean", "released"] = Field(
        "clean",
        description="clean: updates after the optimiser step. released: inside the backward pass, as the released "
        "code of ADCA and PGM does, where an update by one loss term disturbs the gradient of another.",
    )


class ContrastOptions(Options):
    """Cluster contrast within each partition of the draw."""

    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    weight: float = Field(1.0, ge=0, description="Weight of every term.")


CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}
CROSS_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1, "direction": "both"}}
CLUSTER_MEMORY_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"cross_update": "both"}}


class PgmOptions(Options):
    """How visible and infrared clusters are associated."""

    matching: Literal["progressive", "mutual"] = Field(
        "progressive",
        description="progressive: graph matching repeated until every cluster has a partner (PGM). mutual: only "
        "clusters that are each other's nearest.",
    )
    centre_cameras: bool = Field(
        False,
        description="Subtract every camera's mean feature (and with it the modality's) and renormalise, first.",
        json_schema_extra=USES_CAMERAS,
    )


class CrossContrastOptions(Options):
    """Contrast of one modality's images with the other one's prototypes."""

    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    weight: float = Field(0.25, ge=0, description="Weight of every term.")
    direction: Literal["alternate", "both"] = Field(
        "alternate",
        description="alternate: visible images in even epochs of a stage, infrared images in odd ones. both: both "
        "always.",
    )
