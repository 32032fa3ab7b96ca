"""Training protocols of the baseline and of PGM (baseline.md, section 6). Loads no torch."""

from __future__ import annotations

from harness import Recipe, Stage

DCL = Stage(name="intra", epochs=50, iterations=200, cross=False)
"""Dual contrastive learning, the first stage of ADCA and PGM: contrast within each modality."""


def baseline_recipe(dataset: str) -> Recipe:
    """The intra-modality stage alone. A dataset without values of its own takes those of SYSU-MM01."""
    if dataset == "rendered":
        return rendered_recipe(Stage(name="intra", epochs=12, iterations=20, cross=False))
    return _published((DCL if dataset != "regdb" else DCL.model_copy(update={"iterations": 100}),))


def pgm_recipe(dataset: str) -> Recipe:
    """Intra-modality stage, then the stage with progressive graph matching."""
    if dataset == "rendered":
        return rendered_recipe(
            Stage(name="intra", epochs=2, iterations=20, cross=False),
            Stage(name="cross", epochs=10, iterations=20),
        )
    if dataset == "regdb":
        stages = (
            Stage(name="intra", epochs=30, iterations=100, cross=False),
            Stage(name="cross", epochs=30, iterations=100),
        )
        return _published(stages).model_copy(update={"step_epochs": 10})
    return _published((DCL, Stage(name="cross", epochs=50, iterations=200)))


def rendered_recipe(*stages: Stage) -> Recipe:
    """The protocol of the embedded dataset, which every method uses with stages of its own (rendered.md, part II)."""
    return Recipe(
        stages=stages,
        backbone="small",
        visible_clusters=12,
        infrared_clusters=12,
        instances=4,
        visible_views=("rendered-visible",),
        infrared_views=("rendered-infrared",),
        learning_rate=2e-3,
        weight_decay=5e-4,
        schedule="cosine",
        warm_up_steps=20,
    )


def _published(stages: tuple[Stage, ...]) -> Recipe:
    return Recipe(
        stages=stages,
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
