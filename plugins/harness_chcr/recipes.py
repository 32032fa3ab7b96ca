"""CHCR's training protocol. Loads no torch.

CHCR's own values were not found; these are those of later public code of the same first author (chcr.md, section 4).
"""

from __future__ import annotations

from harness import Recipe, Stage
from harness_baseline.recipes import rendered_recipe


def chcr_recipe(dataset: str) -> Recipe:
    """One stage, no intra-modality warm-up."""
    if dataset == "rendered":
        return rendered_recipe(Stage(name="joint", epochs=12, iterations=20))
    return Recipe(
        stages=(Stage(name="joint", epochs=60, iterations=400),),
        visible_clusters=16,
        infrared_clusters=16,
        instances=4,
        visible_views=("plain",),
        infrared_views=("infrared-plain",),
        optimiser="adam",
        learning_rate=3.5e-4,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=20,
    )
