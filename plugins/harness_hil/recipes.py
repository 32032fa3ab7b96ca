"""HIL's training protocol (hil.md, section 4). Loads no torch."""

from __future__ import annotations

from harness import Recipe, Stage
from harness_baseline.recipes import rendered_recipe


def hil_recipe(dataset: str) -> Recipe:
    """SDCL's first epochs as a warm-up, each modality with its own labels; then HIL with a tenth of the rate.

    A dataset without values of its own takes those of SYSU-MM01. The rendered dataset's 12 epochs of 20 iterations are
    split as the published 30 + 30, under the protocol that all methods share there. What changes within a stage does so
    after a share of its epochs, so it does here too: neighbours across modalities from the third epoch of the warm-up,
    the larger MCCL weight from the fifth of the second stage.
    """
    if dataset == "rendered":
        return rendered_recipe(
            Stage(name="warm-up", epochs=6, iterations=20, cross=False),
            Stage(name="hierarchical", epochs=6, iterations=20),
        )
    regdb = dataset == "regdb"
    return Recipe(
        stages=(
            Stage(name="warm-up", epochs=20 if regdb else 30, iterations=50 if regdb else 200, cross=False),
            Stage(
                name="hierarchical",
                epochs=30,
                iterations=50 if regdb else 100,
                learning_rate=3.5e-5,
                step_epochs=30,
            ),
        ),
        backbone="vit",
        visible_clusters=8,
        infrared_clusters=8,
        instances=16,
        visible_views=("plain-jitter", "exchange-jitter"),
        infrared_views=("infrared-jitter",),
        optimiser="sgd",
        learning_rate=3.5e-4,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=20,
    )
