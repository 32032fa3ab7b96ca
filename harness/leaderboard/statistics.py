"""How sure a figure and a difference are.

Intervals are 95 % bootstrap intervals over queries: what would other queries of the same kind have given, with these
trained models? They say nothing of other training seeds; that spread is the deviation over seeds, kept apart. Queries
count as independent, though those of one person are not quite: the intervals are, if anything, too narrow.

The interval is the percentile one. The figures are plain means over hundreds of queries, whose distribution is all but
symmetric, so that BCa would hardly move the ends; and BCa is undefined where all queries agree, as they do for two
equal rows. Nothing is corrected for the number of comparisons: each is at 95 %, and reads the same wherever it is
shown.

Shape suffixes: R rows, Q queries.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.leaderboard.board import Difference, Estimate
from harness.leaderboard.record import Record

Run = tuple[int, int | None]
"""Seed and trial (None on a dataset without)."""

QueryFigure = Literal["rank1", "AP"]

RESAMPLES = 2000
CONFIDENCE = 0.95
_RANDOM_STATE = 0  # any: the same for all, so that equal records give equal intervals
_RESAMPLES_AT_ONCE = 50
_ROWS_AT_ONCE = 16  # 130 MB with the 20,600 queries of RegDB's ten trials
_DECIMALS = 6


def rounded(value: float) -> float:
    """To what a board keeps of a percentage, so that sums in another order give equal boards."""
    return round(float(value), _DECIMALS) + 0.0  # no negative zero


def seed_means(of_run: Mapping[Run, float]) -> dict[int, float]:
    """Mean over the trials of each seed."""
    seeds = sorted({seed for seed, _ in of_run})
    return {seed: statistics.fmean(value for run, value in of_run.items() if run[0] == seed) for seed in seeds}


def estimate(of_run: Mapping[Run, float], of_galleries: Mapping[Run, float | None]) -> Estimate:
    """Mean over the seeds, and the deviations over seeds and over trials apart.

    Args:
        of_run: the figure of each run.
        of_galleries: its deviation over the galleries of that run; None where there is a single gallery.

    A trial is a training on a split of its own where there are such (RegDB), else a gallery. Its deviation is that
    within a seed, pooled over the seeds.
    """
    means = list(seed_means(of_run).values())
    within = [
        sd for sd in (_within(seed, of_run, of_galleries) for seed in {seed for seed, _ in of_run}) if sd is not None
    ]
    return Estimate(
        mean=rounded(statistics.fmean(means)),
        sd_seeds=rounded(statistics.stdev(means)) if len(means) > 1 else None,
        sd_trials=rounded(math.sqrt(statistics.fmean(sd**2 for sd in within))) if within else None,
    )


def _within(seed: int, of_run: Mapping[Run, float], of_galleries: Mapping[Run, float | None]) -> float | None:
    runs = [run for run in of_run if run[0] == seed]
    if len(runs) > 1:
        return statistics.stdev(of_run[run] for run in runs)
    return of_galleries[runs[0]]


def by_query(
    runs: Mapping[Run, Record], figure: QueryFigure, *, queries: Mapping[int | None, int]
) -> NDArray[np.float64]:
    """The mean over the seeds of every query's figure, in percent, float64 [Q].

    ``queries`` numbers those of each trial, which follow one another. NaN for a query without a correct image, and for
    those of a trial that no seed has.
    """
    return np.concatenate([_of_trial(runs, figure, trial, count) for trial, count in queries.items()])


def _of_trial(runs: Mapping[Run, Record], figure: QueryFigure, trial: int | None, count: int) -> NDArray[np.float64]:
    values_SQ = [record.by_query.values(figure) for run, record in runs.items() if run[1] == trial]
    return 100 * np.mean(values_SQ, axis=0) if values_SQ else np.full(count, np.nan)


def intervals(values_RQ: NDArray[np.float64]) -> list[tuple[float, float] | None]:
    """The interval of each row's mean over its queries; None for a row with fewer than two.

    NaN is no query. Rows with the same queries are resampled alike, so that a row's interval does not depend on which
    others are there.
    """
    found: list[tuple[float, float] | None] = [None] * len(values_RQ)
    valid_RQ = ~np.isnan(values_RQ)
    for valid_Q in np.unique(valid_RQ, axis=0):
        if valid_Q.sum() < 2:
            continue
        rows = np.flatnonzero((valid_RQ == valid_Q).all(axis=1))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            for row, interval in zip(some, _bootstrapped(values_RQ[some][:, valid_Q]), strict=True):
                found[row] = interval
    return found


def _bootstrapped(values_RQ: NDArray[np.float64]) -> list[tuple[float, float]]:
    from scipy.stats import bootstrap

    result = bootstrap(
        (values_RQ,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(_RANDOM_STATE),
    )
    ends = result.confidence_interval
    return [(rounded(low), rounded(high)) for low, high in zip(ends.low, ends.high, strict=True)]


def paired_differences(values_RQ: NDArray[np.float64]) -> dict[tuple[int, int], Estimate]:
    """For every ordered pair of rows: the mean of the first minus the second over common queries, with its interval.

    The bootstrap is paired: both rows are resampled with the same queries, which is to resample their differences.
    """
    pairs = [(one, other) for one in range(len(values_RQ)) for other in range(one + 1, len(values_RQ))]
    if not pairs:
        return {}
    differences_PQ = np.stack([values_RQ[one] - values_RQ[other] for one, other in pairs])
    found = {}
    for (one, other), values_Q, interval in zip(pairs, differences_PQ, intervals(differences_PQ), strict=True):
        if interval is None:
            continue
        mean, (low, high) = rounded(np.nanmean(values_Q)), interval
        found[one, other] = Estimate(mean, low=low, high=high)
        found[other, one] = Estimate(rounded(-mean), low=rounded(-high), high=rounded(-low))
    return found


def contains_zero(difference: Estimate) -> bool:
    """Whether the interval of a difference leaves open which of the two is better."""
    return difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high


def groups(count: int, alike: Callable[[int, int], bool]) -> list[int]:
    """Group numbers, from 1, of rows that stand in order of their figure.

    A row joins the group while it is ``alike`` the group's first row; the first that is not opens the next group.
    """
    found: list[int] = []
    first = 0
    for row in range(count):
        opens = row == 0 or not alike(first, row)
        if opens:
            first = row
        found.append(len(set(found)) + opens)
    return found


def difference_to(published: float, means: Sequence[float], *, source: str) -> Difference:
    """The mean over the seeds minus a published figure, with its t-interval over the seeds (none for one seed).

    The published figure counts as exact, since papers seldom give a deviation.
    """
    from scipy.stats import t as student

    points = statistics.fmean(means) - published
    if len(means) < 2:
        return Difference(published, rounded(points), None, None, source)
    half = student.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
    return Difference(published, rounded(points), rounded(points - half), rounded(points + half), source)


def agree(one: Record, other: Record) -> bool:
    """Whether the figures of two runs agree: the interval of their paired difference contains 0, for rank-1 and mAP."""
    for figure in ("rank1", "AP"):
        values = [record.by_query.values(figure) for record in (one, other)]  # type: ignore[arg-type]
        if len(values[0]) != len(values[1]):
            return False
        difference = paired_differences(100 * np.stack(values)).get((0, 1))
        if difference is None or not contains_zero(difference):
            return False
    return True
