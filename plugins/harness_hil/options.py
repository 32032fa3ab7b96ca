"""Options of HIL's parts, and their presets per dataset. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness import USES_CAMERAS, Options


class BrstOptions(Options):
    """How labels are carried over from one modality to the other."""

    direction: Literal["r2v", "v2r", "alternate"] = Field(
        "r2v",
        description="r2v: visible images take the labels of infrared clusters. v2r: the reverse. alternate: r2v in "
        "even epochs of a stage, v2r in odd ones.",
    )
    rho: float = Field(
        0.5,
        ge=0,
        le=1,
        description="An image is kept if it is at least this share as similar to its prototype as the image of its "
        "modality that is most similar to that prototype.",
    )
    centre_cameras: bool = Field(
        False,
        description="Subtract every camera's mean feature (and with it the modality's) and renormalise, first.",
        json_schema_extra=USES_CAMERAS,
    )


BRST_PRESETS: dict[str, dict[str, Any]] = {"regdb": {"rho": 0.8}, "rendered": {"centre_cameras": True}}


class MultiCentreMemoryOptions(Options):
    """How centroids and sub-centres are made and kept up to date."""

    momentum: float = Field(0.1, ge=0, le=1, description="Share of the old centroid that an update keeps.")
    first_momentum: float | None = Field(
        None, ge=0, le=1, description="Its value in the run's first epoch, if that is a warm-up; None: momentum."
    )
    sub_centres: int = Field(
        9, ge=1, description="Groups into which k-means splits a cluster; beside them stands its mean."
    )
    blend: float = Field(0.9, ge=0, le=1, description="Share of the cluster's mean in a sub-centre.")
    update_multi: bool = Field(
        False,
        description="Let every image move the sub-centre of its cluster that it is most similar to, with the same "
        "momentum (disabled in the released code); else sub-centres stay as they are within an epoch.",
    )
    memory_grad: Literal["clean", "released"] = Field(
        "clean",
        description="clean: centroids change after the optimiser step. released: inside the backward pass, as in the "
        "released code, where an update by one loss term disturbs the gradient of another.",
    )


MULTI_CENTRE_MEMORY_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"sub_centres": 2, "first_momentum": 0.99},
    "rendered": {"sub_centres": 2},
}


class BranchContrastOptions(Options):
    """Contrast with centroids, one term per modality and embedding."""

    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    weight: float = Field(1.0, ge=0, description="Weight of every term.")


BRANCH_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {"rendered": {"temperature": 0.1}}


class MultiCentreContrastOptions(Options):
    """Contrast of distances to the several prototypes of clusters (MCCL)."""

    positive: Literal["nearest", "label"] = Field(
        "nearest",
        description="The cluster that a query is drawn to. nearest: that of the nearest prototype. label: that of its "
        "pseudo-label.",
    )
    early_weight: float = Field(0.1, ge=0, description="Weight of every term at the start of a stage (w).")
    late_weight: float = Field(1.0, ge=0, description="Weight of every term from late_from on.")
    late_from: float = Field(
        0.667, ge=0, le=1, description="Share of the stage's epochs after which late_weight holds (20 of 30)."
    )
    shallow_weight: float = Field(0.5, ge=0, description="Factor of the terms of the shallow embedding.")


class NeighbourContrastOptions(Options):
    """Contrast with the single images that resemble a query in both embeddings."""

    weight: float = Field(0.1, ge=0, description="Weight of the terms within a modality.")
    cross_weight: float = Field(0.1, ge=0, description="Weight of the term across modalities.")
    visible_factor: float = Field(
        0.1, ge=0, description="Further factor of that term in even epochs, when the queries are visible."
    )
    warm_up_weight: float = Field(1.0, ge=0, description="weight in a warm-up.")
    warm_up_from: float = Field(0.0, ge=0, le=1, description="Share of its epochs after which warm_up_weight holds.")
    warm_up_cross_weight: float = Field(0.5, ge=0, description="cross_weight in a warm-up.")
    warm_up_cross_from: float = Field(
        0.333, ge=0, le=1, description="Share of its epochs after which warm_up_cross_weight holds (10 of 30)."
    )
    shallow_weight: float = Field(0.5, ge=0, description="Factor of the terms of the shallow embedding.")
    threshold: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Images are neighbours that are more than this share as similar as the most similar one, in every "
        "embedding.",
    )
    temperature: float = Field(0.05, gt=0, description="Temperature of the softmax.")
    momentum: float = Field(0.9, ge=0, le=1, description="Share of an image's old row that an update keeps.")
    update_with: Literal["raw", "unit"] = Field(
        "raw",
        description="What moves an image's row. raw: the embedding as it comes, whose length exceeds the row's by far, "
        "as in the released code. unit: the normalised embedding.",
    )
    memory_grad: Literal["clean", "released"] = Field(
        "clean",
        description="clean: rows change after the optimiser step. released: before the backward pass, whose gradients "
        "then mix old shares and new rows.",
    )


NEIGHBOUR_CONTRAST_PRESETS: dict[str, dict[str, Any]] = {
    "regdb": {"warm_up_from": 0.05, "warm_up_cross_from": 0.5},
    "rendered": {"temperature": 0.1},
}


class ReleasedMultiCentreMemoryOptions(MultiCentreMemoryOptions):
    """As the released code has it."""

    memory_grad: Literal["clean", "released"] = Field(
        "released", description=MultiCentreMemoryOptions.model_fields["memory_grad"].description
    )


class ReleasedNeighbourContrastOptions(NeighbourContrastOptions):
    """As the released code has it."""

    memory_grad: Literal["clean", "released"] = Field(
        "released", description=NeighbourContrastOptions.model_fields["memory_grad"].description
    )
