"""A training protocol: stages, batches, optimiser, encoder, augmentation. Importing this module does not load torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(_Frozen):
    """A stretch of epochs with one optimiser. A new stage begins a new optimiser and schedule, on the same encoder."""

    name: str = Field(description="Name of the stage, as shown in progress and records.")
    epochs: int = Field(ge=0, description="Epochs of the stage.")
    iterations: int = Field(ge=1, description="Iterations per epoch.")
    cross: bool = Field(
        True,
        description="Whether cross-modality evidence is used in this stage (association, joint clustering).",
    )
    learning_rate: float | None = Field(None, gt=0, description="Overrides the recipe's learning rate.")
    visible_clusters: int | None = Field(None, ge=1, description="Overrides the recipe's clusters in a visible batch.")
    step_epochs: int | None = Field(None, ge=1, description="Overrides the recipe's epochs between two reductions.")
    teacher: Literal["average", "follow"] = Field(
        "average",
        description="Whether the teacher averages the encoder's parameters in this stage, or is a copy of the encoder, "
        "so that the next stage starts from it.",
    )


class Recipe(_Frozen):
    """A paper's training protocol on one dataset. Sizes count images; rates are per optimiser step unless said.

    >>> intra, cross = Stage(name="intra", epochs=4, iterations=100), Stage(name="cross", epochs=8, iterations=100)
    >>> recipe = Recipe(stages=(intra, cross))
    >>> recipe.epochs, recipe.at(5), [stage.epochs for stage in recipe.shortened(epochs=3).stages]
    (12, (1, 1), [1, 2])
    """

    stages: tuple[Stage, ...] = Field(description="Stages, in order.")
    backbone: str = Field("agw", description="Name of the encoder.")
    visible_clusters: int = Field(8, ge=1, description="Clusters in a visible batch (P).")
    infrared_clusters: int = Field(8, ge=1, description="Clusters in an infrared batch (P).")
    instances: int = Field(16, ge=1, description="Images per cluster in a batch (K).")
    prefer_other_cameras: bool = Field(
        True, description="Companions of an anchor come from other cameras if there are any."
    )
    visible_views: tuple[str, ...] = Field(
        ("plain", "exchange"),
        description="Augmented views of each visible image in a batch, by augmentation preset.",
    )
    infrared_views: tuple[str, ...] = Field(("infrared",), description="Augmented views of each infrared image.")
    step: Literal["sum", "draw"] = Field(
        "sum", description="One optimiser step on the sum over the draws of an iteration, or one per draw."
    )
    optimiser: Literal["adam", "sgd"] = Field("adam", description="Adam (betas 0.9, 0.999) or SGD (momentum 0.9).")
    learning_rate: float = Field(3.5e-4, gt=0, description="Learning rate at the start of a stage.")
    weight_decay: float = Field(5e-4, ge=0, description="L2 added to the gradient.")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step",
        description="step: x step_factor every step_epochs; cosine: to zero over all stages, per iteration.",
    )
    step_epochs: int = Field(20, ge=1, description="Epochs between two reductions (schedule = step).")
    step_factor: float = Field(0.1, gt=0, description="Factor of one reduction (schedule = step).")
    warm_up_steps: int = Field(0, ge=0, description="Linear warm-up at the start of the run, in iterations.")
    teacher_decay: float = Field(0.999, ge=0, lt=1, description="EMA decay of the teacher, if a part needs one.")
    evaluate_encoder: Literal["online", "teacher"] = Field("online", description="Which encoder is evaluated.")

    @property
    def epochs(self) -> int:
        """Epochs over all stages."""
        return sum(stage.epochs for stage in self.stages)

    def at(self, epoch: int) -> tuple[int, int]:
        """(stage number, epoch within the stage) of the run's epoch ``epoch``, both from 0."""
        for number, stage in enumerate(self.stages):
            if epoch < stage.epochs:
                return number, epoch
            epoch -= stage.epochs
        raise IndexError(epoch)

    def shortened(self, *, epochs: int | None = None, iterations: int | None = None) -> Recipe:
        """The same recipe with ``epochs`` in all and ``iterations`` per epoch.

        Stages share the epochs in proportion, each keeping at least one if there are enough.
        """
        stages = list(self.stages)
        if epochs is not None:
            shares = _share(epochs, [stage.epochs for stage in stages])
            stages = [s.model_copy(update={"epochs": n}) for s, n in zip(stages, shares, strict=True)]
        if iterations is not None:
            stages = [s.model_copy(update={"iterations": iterations}) for s in stages]
        return self.model_copy(update={"stages": tuple(stages)})


def _share(total: int, weights: list[int]) -> list[int]:
    """``total`` split in proportion to ``weights``; every positive weight gets at least 1 while the total lasts."""
    whole = sum(weights)
    ends = [round(total * sum(weights[: n + 1]) / max(1, whole)) for n in range(len(weights))]
    shares = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    for place, weight in enumerate(weights):
        richest = max(range(len(shares)), key=shares.__getitem__)
        if weight and not shares[place] and shares[richest] > 1:
            shares[place], shares[richest] = 1, shares[richest] - 1
    return shares
