"""ADCA's training protocol: contrast within each modality first, aggregation across them second. Loads no torch."""

from __future__ import annotations

from harness import Recipe, Stage


def adca_recipe(dataset: str) -> Recipe:
    """Two stages. A dataset without values of its own takes those of SYSU-MM01."""
    if dataset == "rendered":
        return _rendered()
    iterations = 100 if dataset == "regdb" else 200
    return Recipe(
        stages=(
            Stage(name="intra", epochs=50, iterations=iterations, cross=False),
            Stage(name="aggregation", epochs=50, iterations=iterations),
        ),
        visible_clusters=8,
        infrared_clusters=16,
        instances=16,
        visible_views=("plain", "exchange"),
        infrared_views=("infrared",),
        optimiser="adam",
        learning_rate=3.5e-4,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=20,
    )


def _rendered() -> Recipe:
    """Twelve epochs with the small encoder: the sizes and rates that the harness's own methods use there."""
    return Recipe(
        stages=(
            Stage(name="intra", epochs=6, iterations=20, cross=False),
            Stage(name="aggregation", epochs=6, iterations=20),
        ),
        backbone="small",
        visible_clusters=12,
        infrared_clusters=12,
        instances=4,
        visible_views=("rendered-visible",),
        infrared_views=("rendered-infrared",),
        learning_rate=2e-3,
        schedule="cosine",
        warm_up_steps=20,
    )
