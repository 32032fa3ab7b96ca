"""Compiled kernels of the neighbour search: which rows may be among the nearest, and their exact order.

Every row has a short list of candidates (``values``, ``indices``, ``counts``), a threshold from which on no row is
taken in, and ``lost_N``: rows of a value below that have all been kept. Where too many rows lie within the errors of
the k-th seen so far, the farther ones are dropped and ``lost_N`` falls; whether that mattered shows at the end. Kernels
work on a range of rows that no other thread touches.

Shape letters: N rows, D feature size, C places of a candidate list, B and J rows of the two panels of a block.
"""

# numba infers the types of a kernel's arguments:
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

_CHUNK = 32
"""Distances that are compared at once before any of them is looked at."""


@njit(nogil=True, cache=True)
def _kth_or_more(values, k):
    """A number that at least k of the values do not exceed, above the least such number by a 2⁻¹⁶ of their range."""
    low, high = values.min(), values.max()
    for _ in range(16):
        middle = np.float32(0.5) * (low + high)
        count = np.int32(0)
        for place in range(values.shape[0]):
            count += np.int32(values[place] <= middle)
        if count >= k:
            high = middle
        else:
            low = middle
    return high


@njit(nogil=True, cache=True)
def _limit(row, values_C, indices_C, errors_N, k):
    """The value beyond which no row can be among the k nearest, as far as these candidates tell (``coarse``)."""
    highest_C = np.empty_like(values_C)
    for place in range(values_C.shape[0]):
        highest_C[place] = values_C[place] + np.float32(2) * errors_N[indices_C[place]]
    return _kth_or_more(highest_C, k) + np.float32(2) * errors_N[row]


@njit(nogil=True, cache=True)
def _prune(row, lists, errors_N, k):
    """Lowers the threshold of a list to what can still matter, or to half of its places, and drops the rest."""
    values_NC, indices_NC, counts_N, threshold_N, lost_N = lists
    places, count = values_NC.shape[1], counts_N[row]
    values_C = values_NC[row, :count]
    limit = _limit(row, values_C, indices_NC[row], errors_N, k)
    within = 0
    for place in range(count):
        within += values_C[place] <= limit
    if within > 3 * places // 4:
        middle = np.partition(values_C, places // 2)[places // 2]
        limit, lost_N[row] = np.nextafter(middle, np.float32(-np.inf)), middle
    kept = 0
    for place in range(count):
        if values_NC[row, place] <= limit:
            values_NC[row, kept] = values_NC[row, place]
            indices_NC[row, kept] = indices_NC[row, place]
            kept += 1
    counts_N[row], threshold_N[row] = kept, min(limit, threshold_N[row])


@njit(nogil=True, cache=True)
def tighten(first, last, lists, errors_N, k):
    """Brings the thresholds of a range of rows up to date."""
    for row in range(first, last):
        if lists[2][row] >= k:
            _prune(row, lists, errors_N, k)


@njit(nogil=True, cache=True)
def _offer(row, column, value, lists, errors_N, k):
    values_NC, indices_NC, counts_N = lists[0], lists[1], lists[2]
    count = counts_N[row]
    values_NC[row, count] = value
    indices_NC[row, count] = column
    counts_N[row] = count + 1
    if count + 1 == values_NC.shape[1]:
        _prune(row, lists, errors_N, k)


@njit(nogil=True, cache=True)
def first_limits(first, last, products_BB, row_0, unit_N, lows_N, lists, errors_N, k):
    """Sets the thresholds of rows ``first`` to ``last`` by the products within their own block, of k rows or more."""
    threshold_N, highest = lists[3], np.empty(products_BB.shape[1], dtype=np.float32)
    for b in range(first, last):
        row, factor = row_0 + b, np.float32(-2) * unit_N[row_0 + b]
        for j in range(highest.shape[0]):
            value = factor * np.float32(products_BB[b, j]) * unit_N[row_0 + j] + lows_N[row_0 + j]
            highest[j] = value + np.float32(2) * errors_N[row_0 + j]
        threshold_N[row] = _kth_or_more(highest, k) + np.float32(2) * errors_N[row]


@njit(nogil=True, cache=True)
def _any_for_row(products_J, unit_J, lows_J, factor, limit):
    """Whether any value of a row's chunk is within the row's limit: a loop without branches, for vector units."""
    found = np.int32(0)
    for j in range(products_J.shape[0]):
        found |= np.int32(factor * np.float32(products_J[j]) * unit_J[j] + lows_J[j] <= limit)
    return found != 0


@njit(nogil=True, cache=True)
def _any_for_columns(products_J, unit_J, low, factor, limit_J):
    """Whether any value of a row's chunk is within the limit of its column."""
    found = np.int32(0)
    for j in range(products_J.shape[0]):
        found |= np.int32(factor * np.float32(products_J[j]) * unit_J[j] + low <= limit_J[j])
    return found != 0


@njit(nogil=True, cache=True)
def offer_to_rows(first, last, products_BJ, row_0, column_0, unit_N, lows_N, lists, errors_N, k):
    """Offers the columns of a block to its rows ``first`` to ``last``.

    ``lists``: values, indices, counts, thresholds and lost values of all rows.
    """
    width, threshold_N = products_BJ.shape[1], lists[3]
    unit_J, lows_J = unit_N[column_0 : column_0 + width], lows_N[column_0 : column_0 + width]
    for b in range(first, last):
        row, products_J = row_0 + b, products_BJ[b]
        factor = np.float32(-2) * unit_N[row]
        for start in range(0, width, _CHUNK):
            end = min(start + _CHUNK, width)
            if _any_for_row(products_J[start:end], unit_J[start:end], lows_J[start:end], factor, threshold_N[row]):
                for j in range(start, end):
                    value = factor * np.float32(products_J[j]) * unit_J[j] + lows_J[j]
                    if value <= threshold_N[row]:
                        _offer(row, column_0 + j, value, lists, errors_N, k)


@njit(nogil=True, cache=True)
def offer_to_columns(first, last, products_BJ, row_0, column_0, unit_N, lows_N, lists, errors_N, k):
    """Offers the rows of a block to its columns ``first`` to ``last``: the same products serve both directions."""
    width = products_BJ.shape[1]
    unit_J, threshold_J = unit_N[column_0 : column_0 + width], lists[3][column_0 : column_0 + width]
    for b in range(products_BJ.shape[0]):
        row, products_J = row_0 + b, products_BJ[b]
        factor, low = np.float32(-2) * unit_N[row], lows_N[row]
        for start in range(first, last, _CHUNK):
            end = min(start + _CHUNK, last)
            if _any_for_columns(products_J[start:end], unit_J[start:end], low, factor, threshold_J[start:end]):
                for j in range(start, end):
                    value = factor * np.float32(products_J[j]) * unit_J[j] + low
                    if value <= threshold_J[j]:
                        _offer(column_0 + j, row, value, lists, errors_N, k)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _squared_distance(left_D, right_D):
    total = 0.0
    for d in range(left_D.shape[0]):
        difference = np.float64(left_D[d]) - np.float64(right_D[d])
        total += difference * difference
    return total


@njit(nogil=True, cache=True)
def _insert(distance, column, distances_K, nearest_K, filled):
    """Puts a row into a list sorted by distance and then by index; returns the new length."""
    k = distances_K.shape[0]
    place = filled if filled < k else k - 1
    if filled == k and (distance, column) >= (distances_K[place], nearest_K[place]):
        return filled
    while place > 0 and (distance, column) < (distances_K[place - 1], nearest_K[place - 1]):
        distances_K[place] = distances_K[place - 1]
        nearest_K[place] = nearest_K[place - 1]
        place -= 1
    distances_K[place] = distance
    nearest_K[place] = column
    return min(filled + 1, k)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _quick_distance(left_D, right_D, scale):
    """The squared distance times ``scale``², in float32; ``left_D`` is scaled already."""
    total = np.float32(0)
    for d in range(left_D.shape[0]):
        difference = np.float32(left_D[d] - scale * right_D[d])
        total += difference * difference
    return total


@njit(nogil=True, cache=True)
def _quick_candidates(
    left_D, features_ND, scale, order_N, values, indices, square, margin, error, quick, columns, nearest
):
    """Fills ``quick`` and ``columns`` with the candidates that may be among the k nearest; returns their number.

    Candidates come in the order of their coarse distance, until even the least distance that the coarse one allows is
    beyond the k-th. ``nearest``: k places.
    """
    k, filled, count = nearest.shape[0], 0, 0
    for place in np.argsort(values):
        least = np.float64(values[place]) + square - margin
        if filled == k and least > _at_most(nearest[k - 1], error):
            break
        columns[count] = order_N[indices[place]]
        quick[count] = _quick_distance(left_D, features_ND[columns[count]], scale)
        if filled < k or quick[count] < nearest[k - 1]:
            filled = min(filled + 1, k)
            into = filled - 1
            while into > 0 and nearest[into - 1] > quick[count]:
                nearest[into] = nearest[into - 1]
                into -= 1
            nearest[into] = quick[count]
        count += 1
    return count


@njit(nogil=True, cache=True)
def _at_most(quick, error):
    """The largest distance that a quick one allows; differences below 2⁻⁷⁵ may have been lost from it."""
    return np.float64(quick) * (1 + error) + 2.0**-100


@njit(nogil=True, cache=True)
def settle(first, last, chain_N, features_ND, order_N, lists, squares_N, errors_N, scale, nearest_NK, crowded_N):
    """The exact k nearest candidates of each row of a range of the chain, in ``nearest_NK``; else ``crowded_N`` is set.

    Distances in float32 come first: summed differences, off by no more than a relative γ_D+8 whatever their order.
    Only where that leaves the order of two candidates open are both computed in float64.
    """
    values_NC, indices_NC, counts_N, _, lost_N = lists
    k, size = nearest_NK.shape[1], features_ND.shape[1]
    error = 2 * (size + 8) * 2.0**-24 / (1 - (size + 8) * 2.0**-24)
    scale = features_ND.dtype.type(scale)
    quick, columns = np.empty(values_NC.shape[1], dtype=np.float32), np.empty(values_NC.shape[1], dtype=np.int64)
    distances_K, nearest_quick = np.empty(k), np.empty(k, dtype=np.float32)
    for row in chain_N[first:last]:
        values, own = values_NC[row, : counts_N[row]], order_N[row]
        crowded_N[own] = values.shape[0] < k or _limit(row, values, indices_NC[row], errors_N, k) >= lost_N[row]
        if crowded_N[own]:
            continue
        count = _quick_candidates(
            features_ND[own] * scale,
            features_ND,
            scale,
            order_N,
            values,
            indices_NC[row],
            squares_N[row],
            errors_N[row],
            error,
            quick,
            columns,
            nearest_quick,
        )
        in_order = np.argsort(quick[:count])
        filled = 0
        for place in range(count):
            here = in_order[place]
            distance = np.float64(quick[here])
            open_before = place > 0 and distance <= _at_most(quick[in_order[place - 1]], 2 * error)
            open_after = place + 1 < count and quick[in_order[place + 1]] <= _at_most(distance, 2 * error)
            if open_before or open_after:
                exact = _squared_distance(features_ND[own], features_ND[columns[here]])
                distance = exact * np.float64(scale) * np.float64(scale)
            filled = _insert(distance, columns[here], distances_K, nearest_NK[own], filled)


@njit(nogil=True, cache=True)
def settle_listed(first, last, features_ND, rows_B, candidates_BC, nearest_BK):
    """The exact k nearest of listed candidates, for each row of ``rows_B``; a candidate below 0 is none."""
    k = nearest_BK.shape[1]
    distances_K = np.empty(k)
    for b in range(first, last):
        filled = 0
        for column in candidates_BC[b]:
            if column >= 0:
                distance = _squared_distance(features_ND[rows_B[b]], features_ND[column])
                filled = _insert(distance, column, distances_K, nearest_BK[b], filled)
