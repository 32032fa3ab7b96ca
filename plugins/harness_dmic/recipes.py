"""DMIC's training protocol (dmic.md, section 4). Loads no torch."""

from __future__ import annotations

from harness import Recipe, Stage
from harness_baseline.recipes import rendered_recipe


def dmic_recipe(dataset: str) -> Recipe:
    """As many epochs within modalities as across them, 50 + 50; a new optimiser for the second stage.

    The rendered dataset's twelve epochs are shared out in the same proportion. A dataset without values of its own
    takes those of SYSU-MM01.
    """
    if dataset == "rendered":
        return rendered_recipe(*_stages(epochs=6, iterations=20))
    return Recipe(
        stages=_stages(epochs=50, iterations=100 if dataset == "regdb" else 200),
        visible_clusters=4,
        infrared_clusters=4,
        instances=16,
        visible_views=("plain", "exchange"),
        infrared_views=("infrared",),
        optimiser="adam",
        learning_rate=3.5e-4,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=20,
    )


def _stages(*, epochs: int, iterations: int) -> tuple[Stage, Stage]:
    return (
        Stage(name="intra", epochs=epochs, iterations=iterations, cross=False),
        Stage(name="inter", epochs=epochs, iterations=iterations),
    )
