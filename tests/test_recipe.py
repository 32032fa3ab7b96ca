"""Recipes: stages, and shortening them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.recipe import Recipe, Stage


def recipe(*epochs: int) -> Recipe:
    return Recipe(stages=tuple(Stage(name=f"s{n}", epochs=e, iterations=5) for n, e in enumerate(epochs)))


def test_finds_the_stage_of_an_epoch() -> None:
    made = recipe(2, 0, 3)
    assert [made.at(epoch) for epoch in range(5)] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    with pytest.raises(IndexError):
        made.at(5)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(sum), st.integers(1, 80))
def test_shortening_keeps_the_total_every_stage_and_nearly_the_proportions(epochs: list[int], wanted: int) -> None:
    shortened = recipe(*epochs).shortened(epochs=wanted)
    assert shortened.epochs == wanted
    stages = sum(1 for count in epochs if count)
    for stage, before in zip(shortened.stages, epochs, strict=True):
        assert (stage.epochs > 0) == (before > 0) or wanted < stages
        assert abs(stage.epochs - before * wanted / sum(epochs)) <= stages


def test_shortening_iterations_leaves_the_epochs() -> None:
    shortened = recipe(2, 3).shortened(iterations=1)
    assert [(stage.epochs, stage.iterations) for stage in shortened.stages] == [(2, 1), (3, 1)]
    assert recipe(2, 3).shortened() == recipe(2, 3)


def test_no_epochs_at_all_is_allowed() -> None:
    assert recipe(2, 3).shortened(epochs=0).epochs == 0


@pytest.mark.parametrize("changes", [{"learning_rate": 0}, {"instances": 0}, {"optimiser": "lion"}, {"epoch": 3}])
def test_refuses_values_that_cannot_be(changes) -> None:
    with pytest.raises(ValidationError):
        Recipe(stages=(Stage(name="s", epochs=1, iterations=1),), **changes)
