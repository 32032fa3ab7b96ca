"""How sure a mean of paired differences is.

A difference belongs to a *unit* (the seed, or the trial) and to its *partners* (everything else that the two runs have
in common). Differences of one seed are not independent, because the seed draws initial weights and batches for all of
them; neither are those beside the same partners, which are the same two cells again. Both count as drawn at random, so
that an interval says what other seeds, and other sets of partners of this kind, would give. The variance of the mean is
that between the sums of the seeds plus that between the sums of the partners (the two-way cluster-robust variance of
Cameron, Gelbach and Miller 2011, without subtracting what both share, which errs on the wide side); the interval is
Student's t with Satterthwaite's degrees of freedom.

Why no bootstrap: with two or three seeds it can only draw these again, and its percentiles are too narrow by far. The t
quantile knows how few they are; it makes intervals of two seeds wide, as they must be. In simulated grids (the tests
have some) 95 % intervals hold the truth 93 to 99 % of the time with three seeds; with two, 88 to 99 %, the less the
more of the spread is common to a seed. With one seed there is no interval: what another would give cannot be known.
With one set of partners the interval is over the seeds alone, and says nothing of other partners.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_DECIMALS = 9  # percentage points; below the resolution of figures (1e-6)


@dataclass(frozen=True, slots=True)
class Difference:
    """One paired difference, in percentage points, with the unit and the partners that it belongs to."""

    points: float
    unit: Hashable
    partners: Hashable


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of paired differences. ``low``, ``high``, ``p``: its 95 % interval and the two-sided p-value of the same
    t statistic; None where there is one unit only."""

    points: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int
    units: int
    partners: int


def mean_of(differences: Sequence[Difference]) -> Mean:
    """The mean of ``differences`` (at least one) with its interval."""
    points = _rounded(math.fsum(one.points for one in differences) / len(differences))
    units = _sums((one.unit, one.points - points) for one in differences)
    partners = _sums((one.partners, one.points - points) for one in differences)
    low = high = p = None
    if len(units) > 1:
        half, p = _half_width(points, [_variance(units, len(differences)), _variance(partners, len(differences))])
        low, high = _rounded(points - half), _rounded(points + half)
    return Mean(points, low, high, p, len(differences), len(units), len(partners))


def _sums(deviations: Iterable[tuple[Hashable, float]]) -> dict[Hashable, float]:
    found: defaultdict[Hashable, list[float]] = defaultdict(list)
    for cluster, deviation in deviations:
        found[cluster].append(deviation)
    return {cluster: math.fsum(of_one) for cluster, of_one in found.items()}


def _variance(sums: Mapping[Hashable, float], count: int) -> tuple[float, int]:
    """The part of the variance of a mean of ``count`` that is between clusters, and its degrees of freedom."""
    if len(sums) < 2:
        return 0.0, 0
    inflated = len(sums) / (len(sums) - 1)
    return inflated * math.fsum(value**2 for value in sums.values()) / count**2, len(sums) - 1


def _half_width(points: float, variances: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Half of the interval, and the p-value of no difference."""
    from scipy.stats import t as student

    total = math.fsum(variance for variance, _ in variances)
    if total < 10**-_DECIMALS:  # every pair agrees to the last digit
        return 0.0, float(abs(points) < 10**-_DECIMALS)
    freedom = total**2 / math.fsum(variance**2 / degrees for variance, degrees in variances if degrees)
    half = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return half, float(2 * student.sf(abs(points) / math.sqrt(total), freedom))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of one family, in the order given. None is no test and counts for none.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    tests = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(tests):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        adjusted[place] = highest
    return adjusted


def _rounded(value: float) -> float:
    return round(value, _DECIMALS) + 0.0  # no negative zero
