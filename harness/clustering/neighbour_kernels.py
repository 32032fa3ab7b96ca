"""Compiled kernels of the neighbour search: which rows may be among the nearest, and their exact order.

Every row has a short list of candidates (``values``, ``indices``, ``counts``), a threshold from which on no row is
taken in, and ``lost_N``: rows of a value below that have all been kept. Where too many rows lie within the margin of
the k-th seen so far, the farther ones are dropped and ``lost_N`` falls; whether that mattered shows at the end. Kernels
work on a range of rows that no other thread touches.

Shape letters: N rows, D feature size, C places of a candidate list, B and J rows of the two panels of a block.
"""

# numba infers the types of a kernel's arguments:
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

_CHUNK = 64
"""Distances that are compared at once before any of them is looked at."""


@njit(nogil=True, cache=True)
def _prune(row, lists, reach_N, k):
    """Lowers the threshold of a full list to what can still matter, or to half of the list, and drops the rest."""
    values_NC, indices_NC, counts_N, threshold_N, lost_N = lists
    places = values_NC.shape[1]
    values_C = values_NC[row]
    limit = np.float32(np.partition(values_C, k - 1)[k - 1] + reach_N[row])
    within = 0
    for place in range(places):
        within += values_C[place] <= limit
    if within > 3 * places // 4:
        middle = np.partition(values_C, places // 2)[places // 2]
        limit, lost_N[row] = np.nextafter(middle, np.float32(-np.inf)), middle
    kept = 0
    for place in range(places):
        if values_NC[row, place] <= limit:
            values_NC[row, kept] = values_NC[row, place]
            indices_NC[row, kept] = indices_NC[row, place]
            kept += 1
    counts_N[row], threshold_N[row] = kept, limit


@njit(nogil=True, cache=True)
def _offer(row, column, value, lists, reach_N, k):
    values_NC, indices_NC, counts_N = lists[0], lists[1], lists[2]
    count = counts_N[row]
    values_NC[row, count] = value
    indices_NC[row, count] = column
    counts_N[row] = count + 1
    if count + 1 == values_NC.shape[1]:
        _prune(row, lists, reach_N, k)


@njit(nogil=True, cache=True)
def _any_below(products_J, unit_J, squares_J, factor, limit):
    """Whether any value of a row's chunk is within the row's limit: a loop without branches, for vector units."""
    found = np.int32(0)
    for j in range(products_J.shape[0]):
        found |= np.int32(factor * np.float32(products_J[j]) * unit_J[j] + squares_J[j] <= limit)
    return found != 0


@njit(nogil=True, cache=True)
def _any_below_own(products_J, unit_J, square, factor, limit_J):
    """Whether any value of a row's chunk is within the limit of its column."""
    found = np.int32(0)
    for j in range(products_J.shape[0]):
        found |= np.int32(factor * np.float32(products_J[j]) * unit_J[j] + square <= limit_J[j])
    return found != 0


@njit(nogil=True, cache=True)
def offer_to_rows(first, last, products_BJ, row_0, column_0, unit_N, squares_N, lists, reach_N, k):
    """Offers the columns of a block to its rows ``first`` to ``last``.

    ``lists``: values, indices, counts, thresholds and lost values of all rows.
    """
    width, threshold_N = products_BJ.shape[1], lists[3]
    unit_J, squares_J = unit_N[column_0 : column_0 + width], squares_N[column_0 : column_0 + width]
    for b in range(first, last):
        row, products_J = row_0 + b, products_BJ[b]
        factor = np.float32(-2) * unit_N[row]
        for start in range(0, width, _CHUNK):
            end = min(start + _CHUNK, width)
            limit = threshold_N[row]
            if _any_below(products_J[start:end], unit_J[start:end], squares_J[start:end], factor, limit):
                for j in range(start, end):
                    value = factor * np.float32(products_J[j]) * unit_J[j] + squares_J[j]
                    if value <= threshold_N[row]:
                        _offer(row, column_0 + j, value, lists, reach_N, k)


@njit(nogil=True, cache=True)
def offer_to_columns(first, last, products_BJ, row_0, column_0, unit_N, squares_N, lists, reach_N, k):
    """Offers the rows of a block to its columns ``first`` to ``last``: the same products serve both directions."""
    width = products_BJ.shape[1]
    unit_J, threshold_J = unit_N[column_0 : column_0 + width], lists[3][column_0 : column_0 + width]
    for b in range(products_BJ.shape[0]):
        row, products_J = row_0 + b, products_BJ[b]
        factor, square = np.float32(-2) * unit_N[row], squares_N[row]
        for start in range(first, last, _CHUNK):
            end = min(start + _CHUNK, last)
            if _any_below_own(products_J[start:end], unit_J[start:end], square, factor, threshold_J[start:end]):
                for j in range(start, end):
                    value = factor * np.float32(products_J[j]) * unit_J[j] + square
                    if value <= threshold_J[j]:
                        _offer(column_0 + j, row, value, lists, reach_N, k)


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


@njit(nogil=True, cache=True)
def settle(first, last, features_ND, lists, squares_N, reach_N, scale_squared, nearest_NK, crowded_N):
    """The exact k nearest candidates of each row of a range, written to ``nearest_NK``; else ``crowded_N`` is set.

    Candidates come in the order of their coarse distance, until even the least exact distance that the coarse one
    allows is beyond the k-th.
    """
    values_NC, indices_NC, counts_N, _, lost_N = lists
    k = nearest_NK.shape[1]
    distances_K = np.empty(k)
    for row in range(first, last):
        values = values_NC[row, : counts_N[row]]
        in_order = np.argsort(values)
        crowded_N[row] = values.shape[0] < k or values[in_order[k - 1]] + reach_N[row] >= lost_N[row]
        if crowded_N[row]:
            continue
        filled = 0
        for place in in_order:
            least = np.float64(values[place]) + squares_N[row] - reach_N[row] / 2
            if filled == k and least > distances_K[k - 1] * scale_squared:
                break
            column = indices_NC[row, place]
            distance = _squared_distance(features_ND[row], features_ND[column])
            filled = _insert(distance, column, distances_K, nearest_NK[row], filled)


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
