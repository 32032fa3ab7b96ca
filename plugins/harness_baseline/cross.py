"""Which way cross-modality contrast goes in an epoch: one rule for the loss and for the memory."""

from __future__ import annotations

from harness.contracts import EpochContext

VISIBLE_TO_INFRARED = ("visible", "infrared")
INFRARED_TO_VISIBLE = ("infrared", "visible")


def cross_directions(epoch: EpochContext, direction: str) -> tuple[tuple[str, str], ...]:
    """Pairs (modality of the queries, modality of the prototypes) in use this epoch.

    ``direction``: "off", "alternate" (visible queries in even epochs of the stage, infrared queries in odd ones) or
    "both". Nothing in stages without cross-modality evidence. Source: PGM (baseline.md 5.2).
    """
    if not epoch.cross or direction == "off":
        return ()
    if direction == "both":
        return VISIBLE_TO_INFRARED, INFRARED_TO_VISIBLE
    return (INFRARED_TO_VISIBLE,) if epoch.epoch % 2 else (VISIBLE_TO_INFRARED,)
