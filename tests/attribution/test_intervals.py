"""Means of paired differences: against hand-made figures, against least squares, and how often intervals hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.attribution.intervals import Difference, holm, mean_of


def crossed(values_SC: np.ndarray) -> list[Difference]:
    """Differences by seed (rows) and partners (columns)."""
    return [Difference(float(value), seed, partners) for (seed, partners), value in np.ndenumerate(values_SC)]


def test_beside_one_set_of_partners_the_interval_is_the_t_interval_over_seeds() -> None:
    values = [1.0, 2.5, 4.0]
    found = mean_of([Difference(value, seed, "the same") for seed, value in enumerate(values)])
    expected = stats.ttest_1samp(values, 0)
    ends = expected.confidence_interval(0.95)
    assert found.points == 2.5
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.pairs, found.units, found.partners) == (3, 3, 1)


def test_the_variance_is_that_of_seeds_plus_that_of_partners() -> None:
    values_SC = np.array([[1.0, 3.0, 2.0], [2.0, 6.0, 4.0]])
    found = mean_of(crossed(values_SC))
    of_seeds = values_SC.mean(axis=1).var(ddof=1) / 2
    of_partners = values_SC.mean(axis=0).var(ddof=1) / 3
    total = of_seeds + of_partners
    freedom = total**2 / (of_seeds**2 / 1 + of_partners**2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert found.points == 3.0
    assert (found.low, found.high) == pytest.approx((3.0 - half, 3.0 + half))


def test_one_seed_gives_no_interval_however_many_partners() -> None:
    found = mean_of([Difference(1.0 + n, 0, n) for n in range(9)])
    assert (found.points, found.low, found.high, found.p) == (5.0, None, None, None)


@pytest.mark.parametrize(("points", "p"), [(0.0, 1.0), (2.0, 0.0)])
def test_pairs_that_all_agree_give_an_interval_of_no_width(points: float, p: float) -> None:
    found = mean_of(crossed(np.full((2, 3), points)))
    assert (found.low, found.high, found.p) == (points, points, p)


def test_a_missing_pair_weighs_neither_its_seed_nor_its_partners() -> None:
    differences = crossed(np.array([[1.0, 2.0], [3.0, 100.0]]))[:3]
    found = mean_of(differences)
    assert found.points == 2.0
    assert found.low < 2.0 < found.high


def test_the_order_of_pairs_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    differences = crossed(rng.normal(size=(3, 5)))
    shuffled = [differences[n] for n in rng.permutation(len(differences))]
    assert mean_of(shuffled) == mean_of(differences)


SPREADS = {"noise": (0, 0), "seeds and noise": (0.5, 0), "partners": (0, 1), "all": (1, 1)}


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_hold_the_truth_nine_times_in_ten(spread: str, seeds: int) -> None:
    rng = np.random.default_rng(7)
    of_seed, of_partners = SPREADS[spread]
    held, grids = 0, 200
    for _ in range(grids):
        values_SC = rng.normal(size=(seeds, 6)) + of_seed * rng.normal(size=(seeds, 1))
        values_SC += of_partners * rng.normal(size=(1, 6)) + 5
        found = mean_of(crossed(values_SC))
        held += found.low <= 5 <= found.high
    assert held >= 0.9 * grids


def test_intervals_are_not_so_wide_that_they_tell_nothing() -> None:
    rng = np.random.default_rng(3)
    clear = [mean_of(crossed(rng.normal(size=(3, 12)) + 2)) for _ in range(100)]
    assert sum(found.low > 0 for found in clear) >= 90


def test_holm_agrees_with_the_definition() -> None:
    rng = np.random.default_rng(5)
    p_values = rng.uniform(size=7).tolist()
    adjusted = holm(p_values)
    for level in (0.05, 0.2, 0.5, 0.9):
        rejected = set()
        for step, place in enumerate(np.argsort(p_values)):
            if p_values[place] > level / (7 - step):
                break
            rejected.add(int(place))
        assert {n for n, p in enumerate(adjusted) if p <= level} == rejected


def test_what_was_not_tested_counts_for_no_test() -> None:
    assert holm([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_every_kind_of_spread_is_simulated() -> None:
    assert {(bool(a), bool(b)) for a, b in SPREADS.values()} == set(itertools.product([False, True], repeat=2))
