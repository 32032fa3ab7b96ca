"""Learning rates by hand."""

from __future__ import annotations

import math

import pytest

from harness.engine.train import learning_rate
from harness.recipe import Recipe, Stage


def recipe(*stages: tuple[int, int], **changes) -> Recipe:
    made = tuple(Stage(name=f"s{n}", epochs=e, iterations=i) for n, (e, i) in enumerate(stages))
    return Recipe(stages=made, learning_rate=0.1, **changes)


def test_step_schedule_counts_the_epochs_of_the_stage() -> None:
    made = recipe((5, 3), (3, 3), schedule="step", step_epochs=2, step_factor=0.5)
    rates = [learning_rate(made, epoch, 1) for epoch in range(8)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.1, 0.1, 0.05])


def test_constant_schedule_and_a_stage_with_a_rate_of_its_own() -> None:
    stages = (
        Stage(name="a", epochs=1, iterations=1),
        Stage(name="b", epochs=1, iterations=1, learning_rate=0.7),
    )
    made = Recipe(stages=stages, learning_rate=0.1, schedule="constant")
    assert [learning_rate(made, epoch, 0) for epoch in range(2)] == pytest.approx([0.1, 0.7])


def test_cosine_schedule_falls_over_all_stages_by_iteration() -> None:
    made = recipe((1, 4), (2, 2), schedule="cosine")
    rates = [learning_rate(made, *at) for at in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1)]]
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])


def test_warm_up_is_linear_from_the_first_step_and_counts_across_epochs() -> None:
    made = recipe((2, 2), schedule="constant", warm_up_steps=3)
    rates = [learning_rate(made, *at) for at in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])


def test_long_work_of_a_run_is_told_to_its_user(run) -> None:
    assert {"extracting features", "scoring"} <= run().show.worked
