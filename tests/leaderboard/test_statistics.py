"""Intervals, differences and groups against brute force and theory, and where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest

from harness.leaderboard.board import Estimate
from harness.leaderboard.statistics import (
    agree,
    by_query,
    contains_zero,
    difference_to,
    estimate,
    groups,
    intervals,
    paired_differences,
)


def of_queries(share, *, count=400, seed=0):
    return 100.0 * (np.random.default_rng(seed).random(count) < share)


def brute_force_interval(values_Q, *, resamples=4000):
    """The percentile interval, one resample at a time, with another generator."""
    random = np.random.RandomState(99)
    means = [values_Q[random.randint(0, len(values_Q), len(values_Q))].mean() for _ in range(resamples)]
    return np.percentile(means, [2.5, 97.5])


class TestTheIntervalOfAFigure:
    def test_is_what_resampling_by_hand_gives(self):
        values_Q = of_queries(0.4)
        (interval,) = intervals(values_Q[None])
        assert interval == pytest.approx(brute_force_interval(values_Q), abs=0.5)

    def test_is_as_wide_as_theory_says(self):
        values_Q = of_queries(0.5, count=2000)
        ((low, high),) = intervals(values_Q[None])
        assert high - low == pytest.approx(2 * 1.96 * 50 / np.sqrt(2000), rel=0.05)

    def test_covers_the_truth_nineteen_times_of_twenty(self):
        samples = np.stack([of_queries(0.3, count=200, seed=seed) for seed in range(300)])
        covered = sum(low <= 30 <= high for low, high in intervals(samples))
        assert 275 <= covered <= 295

    def test_does_not_depend_on_the_other_rows(self):
        rows = np.stack([of_queries(share, seed=place) for place, share in enumerate(np.linspace(0.1, 0.9, 40))])
        together = intervals(rows)
        assert [intervals(row[None])[0] for row in rows[::13]] == together[::13]

    def test_ignores_queries_without_a_correct_image(self):
        values_Q = of_queries(0.4)
        gaps = np.concatenate([values_Q, np.full(7, np.nan)])
        assert intervals(gaps[None]) == intervals(values_Q[None])

    def test_is_a_point_where_all_queries_agree_and_missing_where_there_is_one(self):
        assert intervals(np.full((1, 10), 25.0)) == [(25.0, 25.0)]
        assert intervals(np.array([[25.0, np.nan]])) == [None]


class TestThePairedDifference:
    def test_is_that_of_the_means_and_turns_with_the_order(self):
        rows = np.stack([of_queries(0.6, seed=1), of_queries(0.4, seed=2)])
        found = paired_differences(rows)
        assert found[0, 1].mean == pytest.approx(rows[0].mean() - rows[1].mean(), abs=1e-6)
        assert (found[1, 0].low, found[1, 0].high) == (-found[0, 1].high, -found[0, 1].low)

    def test_is_what_resampling_by_hand_gives(self):
        rows = np.stack([of_queries(0.45, seed=1), of_queries(0.4, seed=2)])
        found = paired_differences(rows)[0, 1]
        assert (found.low, found.high) == pytest.approx(brute_force_interval(rows[0] - rows[1]), abs=0.5)

    def test_sees_a_small_gain_on_the_same_queries_that_apart_would_be_lost(self):
        worse = of_queries(0.4)
        better = worse.copy()
        better[np.flatnonzero(worse == 0)[:10]] = 100
        (low, _), (_, high) = intervals(np.stack([better, worse]))
        assert low < high
        assert not contains_zero(paired_differences(np.stack([better, worse]))[0, 1])

    def test_is_over_the_queries_that_both_have(self):
        one, other = of_queries(0.6, seed=1), of_queries(0.4, seed=2)
        one[:50] = np.nan
        assert paired_differences(np.stack([one, other]))[0, 1].mean == pytest.approx((one - other)[50:].mean())

    def test_of_rows_without_a_common_query_is_missing(self):
        assert paired_differences(np.array([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 2.0]])) == {}

    def test_of_equal_rows_is_zero_and_leaves_it_open(self):
        found = paired_differences(np.stack([of_queries(0.4)] * 2))[0, 1]
        assert (found.mean, found.low, found.high) == (0, 0, 0)
        assert contains_zero(found)


class TestGroups:
    def test_a_row_joins_while_it_is_like_the_first_of_the_group(self):
        values = [10, 9, 7, 6, 1]
        assert groups(5, lambda first, other: values[first] - values[other] <= 2) == [1, 1, 2, 2, 3]

    def test_nothing_has_no_groups_and_one_row_is_the_best(self):
        assert groups(0, lambda *_: True) == []
        assert groups(1, lambda *_: False) == [1]

    def test_the_difference_that_was_not_measured_is_no_likeness(self):
        assert not contains_zero(Estimate(0.0))


class TestDeviations:
    def test_over_seeds_and_over_galleries_stay_apart(self):
        found = estimate({(0, None): 20.0, (1, None): 24.0}, {(0, None): 3.0, (1, None): 4.0})
        assert found.mean == 22
        assert found.sd_seeds == pytest.approx(np.std([20, 24], ddof=1))
        assert found.sd_trials == pytest.approx(np.sqrt((9 + 16) / 2))

    def test_of_splits_with_trainings_of_their_own_are_within_a_seed(self):
        values = {(0, 1): 20.0, (0, 2): 26.0, (1, 1): 30.0, (1, 2): 32.0}
        found = estimate(values, dict.fromkeys(values))
        assert found.sd_seeds == pytest.approx(np.std([23, 31], ddof=1))
        pooled = np.sqrt((np.var([20, 26], ddof=1) + np.var([30, 32], ddof=1)) / 2)
        assert found.sd_trials == pytest.approx(pooled)

    def test_of_a_single_value_there_are_none(self):
        assert estimate({(0, None): 20.0}, {(0, None): None}) == Estimate(20.0)


class TestTheDifferenceToAPublishedFigure:
    def test_has_the_interval_of_a_t_test(self):
        from scipy.stats import ttest_1samp

        means = [50.0, 52.0, 54.5]
        found = difference_to(51.0, means, source="the paper")
        expected = ttest_1samp(np.array(means) - 51.0, 0).confidence_interval(0.95)
        assert found.points == pytest.approx(np.mean(means) - 51)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))

    def test_has_none_for_one_seed(self):
        found = difference_to(51.0, [50.0], source="the paper")
        assert (found.points, found.low, found.high) == (-1.0, None, None)

    def test_is_a_point_where_seeds_agree(self):
        found = difference_to(51.0, [50.0, 50.0], source="the paper")
        assert (found.low, found.points, found.high) == (-1.0, -1.0, -1.0)


class TestSingleQueries:
    def test_are_means_over_the_seeds(self, make_queried):
        runs = {(seed, None): make_queried([seed, 0.5, np.nan], seed=seed) for seed in (0, 1)}
        assert by_query(runs, "rank1", queries={None: 3}) == pytest.approx([50, 50, np.nan], nan_ok=True)

    def test_of_splits_follow_one_another_and_a_missing_split_is_no_query(self, make_queried):
        runs = {(0, 2): make_queried([0.5, 1.0])}
        found = by_query(runs, "rank1", queries={1: 3, 2: 2})
        assert found == pytest.approx([np.nan, np.nan, np.nan, 50, 100], nan_ok=True)


class TestTwoRuns:
    def test_agree_with_themselves_and_within_chance(self, make_queried):
        one, other = (make_queried(of_queries(0.4, seed=seed) / 100) for seed in (1, 2))
        assert agree(one, one)
        assert agree(one, other)

    def test_disagree_when_the_difference_is_more_than_chance(self, make_queried):
        assert not agree(make_queried(of_queries(0.4) / 100), make_queried(of_queries(0.6, seed=1) / 100))

    def test_disagree_when_mean_precision_does_or_the_queries_are_others(self, make_queried):
        rank1_Q = of_queries(0.4) / 100
        assert not agree(make_queried(rank1_Q), make_queried(rank1_Q, rank1_Q * 0.5))
        assert not agree(make_queried(rank1_Q), make_queried(rank1_Q[:-1]))
