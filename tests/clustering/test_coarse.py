"""The error of a coarse distance against the distances themselves, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clustering.coarse import GRADES, CoarseRows, main_directions, possible_grades
from harness.clustering.neighbours import nearest_neighbours, neighbours_of
from harness.errors import SettingsError
from tests.clustering import oracle


def worst_excess(features, coarse):
    """By how much the worst coarse value is off beyond its error bound (below 0: within it), and by how much in all."""
    total, everything = len(features), slice(None)
    centred = features.double() * coarse.scale
    centred = centred - centred.mean(dim=0)
    exact = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist").square()
    products = coarse.products(coarse.panel(0, total), coarse.panel(0, total))
    errors = coarse.errors_N.double()
    values = coarse.lowest(products, everything, everything).double() + errors
    miss = (values + coarse.squares_N.double()[:, None] - exact).abs()
    return float((miss - errors - errors[:, None]).max()), float(miss.max())


def directions(size, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, count, generator=generator, dtype=torch.float64)).Q


@pytest.mark.parametrize("grade", GRADES)
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 60),
    size=st.integers(1, 200),
    shift=st.sampled_from([0.0, 1.0, 50.0]),
    factor=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]),
    tail=st.sampled_from([1, 3]),
    share=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_no_coarse_distance_is_off_by_more_than_its_bound(grade, seed, rows, size, shift, factor, tail, share):
    generator = torch.Generator().manual_seed(seed)
    features = (torch.randn(rows, size, generator=generator) ** tail + shift) * factor
    chosen = None if share is None else directions(size, max(1, round(share * size)), seed)
    excess, _ = worst_excess(features, CoarseRows(features, grade, chosen))
    assert excess <= 0


@pytest.mark.parametrize("grade", GRADES)
def test_the_bound_is_needed(grade):
    """A bound a thousand times smaller would be wrong."""
    features = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    coarse = CoarseRows(features, grade)
    _, error = worst_excess(features, coarse)
    assert error > 2 * float(coarse.errors_N.max()) / 1000


@pytest.mark.parametrize("grade", GRADES)
def test_what_directions_leave_out_is_in_the_bound(grade):
    features = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    coarse = CoarseRows(features, grade, directions(64, 8))
    _, error = worst_excess(features, coarse)
    assert error > float(coarse.errors_N.max()) / 10


def spread(rows, size, rank, *, noise):
    """Rows near a subspace, those of a person (each has three) close together."""
    generator = torch.Generator().manual_seed(5)
    person = torch.randn(rows // 3 + 1, rank, generator=generator).repeat_interleave(3, dim=0)[:rows]
    latent = person + 0.5 * torch.randn(rows, rank, generator=generator)
    return latent @ torch.randn(rank, size, generator=generator) + noise * torch.randn(rows, size, generator=generator)


def test_directions_are_found_where_a_few_hold_the_rows():
    found = main_directions(spread(8200, 256, 30, noise=0.1))
    assert found.shape == (256, 64)
    assert torch.allclose(found.T @ found, torch.eye(64, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("rows", "size"), [(8200, 256), (2000, 256), (8200, 128), (0, 256), (9, 0)])
def test_rows_spread_over_all_directions_and_few_or_short_rows_have_none(rows, size):
    assert main_directions(torch.randn(rows, size, generator=torch.Generator().manual_seed(6))) is None


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("grade", GRADES)
def test_directions_change_no_neighbour(backend, grade):
    features = spread(8200, 256, 30, noise=0.1)
    features[100:150] = features[0]
    features[150:300] = features[300] + 1e-6 * features[150:300]
    assert main_directions(features) is not None
    found = nearest_neighbours(features, 9, backend=backend, grade=grade)
    some = torch.arange(0, 8200, 13)
    assert torch.equal(found[some], neighbours_of(features, some, 9))


def test_a_row_that_is_far_from_the_directions_keeps_its_neighbours():
    features = spread(8200, 256, 30, noise=0.0)
    odd = torch.arange(7, 8200, 400)
    features[odd] = 5 * torch.randn(odd.numel(), 256, generator=torch.Generator().manual_seed(7))
    assert torch.equal(nearest_neighbours(features, 9)[odd], neighbours_of(features, odd, 9))


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
    """400 rows within the error of each other, told apart only by what every grade rounds away."""
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
