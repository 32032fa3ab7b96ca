"""Where in training an epoch stands: one rule for all parts of HIL."""

from __future__ import annotations

from harness.contracts import EpochContext


def warming_up(epoch: EpochContext) -> bool:
    """Whether this is a warm-up: a stage without cross-modality evidence in a recipe that has other stages."""
    return not epoch.cross and epoch.stages > 1


def reached(epoch: EpochContext, share: float) -> bool:
    """Whether at least this share of the stage's epochs lies behind."""
    return epoch.epoch >= round(share * epoch.stage_epochs)
