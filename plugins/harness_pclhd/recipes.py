"""PCLHD's training protocol (pclhd.md, section 4). Loads no torch."""

from __future__ import annotations

from harness import Recipe, Stage
from harness_baseline.recipes import rendered_recipe


def pclhd_recipe(dataset: str) -> Recipe:
    """Intra-modality stage, then the stage with everything; the teacher starts with the second and is evaluated.

    A dataset without values of its own takes those of SYSU-MM01. The rendered dataset's 12 epochs of 20 iterations are
    split as the published 50 + 50; the teacher averages over the same share of the second stage there as on SYSU-MM01,
    a tenth (1 / (1 − decay) of 10,000 and of 120 iterations).
    """
    if dataset == "rendered":
        return rendered_recipe(*_stages(epochs=6, iterations=20)).model_copy(
            update={"step": "draw", "evaluate_encoder": "teacher", "teacher_decay": 0.917}
        )
    iterations = 100 if dataset == "regdb" else 200
    return Recipe(
        stages=_stages(epochs=50, iterations=iterations, first_visible_clusters=4 if dataset == "regdb" else None),
        visible_clusters=8,
        infrared_clusters=8,
        instances=16,
        visible_views=("plain", "exchange"),
        infrared_views=("infrared",),
        step="draw",
        optimiser="adam",
        learning_rate=3.5e-4,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=20,
        teacher_decay=0.999,
        evaluate_encoder="teacher",
    )


def _stages(*, epochs: int, iterations: int, first_visible_clusters: int | None = None) -> tuple[Stage, Stage]:
    first = Stage(
        name="intra",
        epochs=epochs,
        iterations=iterations,
        cross=False,
        teacher="follow",
        visible_clusters=first_visible_clusters,
    )
    return first, Stage(name="progressive", epochs=epochs, iterations=iterations)
