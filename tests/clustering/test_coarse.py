"""The margin of a coarse distance against the distances themselves, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clustering.coarse import GRADES, CoarseRows, possible_grades
from harness.clustering.neighbours import nearest_neighbours
from harness.errors import SettingsError
from tests.clustering import oracle


def worst_excess(features, coarse):
    """By how much the worst coarse value misses its exact value, beyond the margin (below 0: within it)."""
    total = len(features)
    centred = features.double() * coarse.scale
    centred = centred - centred.mean(dim=0)
    exact = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist").square()
    products = coarse.products(coarse.panel(0, total), coarse.panel(0, total)).float()
    values = -2 * coarse.unit_N[:, None] * products * coarse.unit_N + coarse.squares_N
    error = (values.double() + coarse.squares_N.double()[:, None] - exact).abs().amax(dim=1)
    return float((error - coarse.margin_N).max()), float(error.max())


@pytest.mark.parametrize("grade", GRADES)
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 60),
    size=st.integers(1, 200),
    shift=st.sampled_from([0.0, 1.0, 50.0]),
    factor=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]),
    tail=st.sampled_from([1, 3]),
)
def test_no_coarse_distance_is_off_by_more_than_its_margin(grade, seed, rows, size, shift, factor, tail):
    generator = torch.Generator().manual_seed(seed)
    features = (torch.randn(rows, size, generator=generator) ** tail + shift) * factor
    excess, _ = worst_excess(features, CoarseRows(features, grade))
    assert excess <= 0


@pytest.mark.parametrize("grade", GRADES)
def test_the_margin_is_needed(grade):
    """A margin a thousand times smaller would be wrong."""
    features = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    coarse = CoarseRows(features, grade)
    _, error = worst_excess(features, coarse)
    assert error > float(coarse.margin_N.max()) / 1000


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("grade", GRADES)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 60), k=st.integers(1, 20), block=st.integers(1, 70))
def test_every_grade_gives_the_exact_order(backend, grade, seed, rows, k, block):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 6)).astype(np.float32)
    features[rng.integers(0, rows, rows // 3)] = features[0]
    found = nearest_neighbours(torch.from_numpy(features), k, backend=backend, grade=grade, block=block)
    assert found.tolist() == oracle.ranking(features, k)


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("grade", GRADES)
def test_lists_that_overflow_are_searched_again(backend, grade):
    """400 rows within the margin of each other, told apart only by what every grade rounds away."""
    generator = torch.Generator().manual_seed(4)
    base = torch.randn(1, 12, generator=generator)
    features = torch.cat(
        [base + 1e-6 * torch.randn(400, 12, generator=generator), torch.randn(50, 12, generator=generator)]
    )
    found = nearest_neighbours(features, 9, backend=backend, grade=grade)
    assert found[:40].tolist() == oracle.ranking(features.tolist(), 9)[:40]


def test_an_unknown_grade_is_an_error_that_names_those_that_are_exact():
    with pytest.raises(SettingsError, match="bfloat16, float32"):
        nearest_neighbours(torch.zeros(3, 2), 1, grade="float8")


def test_features_too_wide_for_int32_sums_have_no_int8_grade():
    assert "int8" not in possible_grades(torch.zeros(1, 133_001))
    assert possible_grades(torch.zeros(1, 8))[-1] == "float32"
