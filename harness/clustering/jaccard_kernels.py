"""Compiled kernels of the k-reciprocal Jaccard distance, on compressed rows.

Every kernel works on a range of rows and either writes to their places of an array given to it, or returns the rows it
made: their lengths [rows] and their entries, one after the other. Index arrays are int32 or int64.

Shape letters: N images, K length of a rank list, H length of half a list.
"""

# numba infers the types of a kernel's arguments:
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def mutual_lists(first, last, ranking_NK, width, members_NW, counts_N):
    """The rows that are in each other's first ``width`` list entries."""
    for row in range(first, last):
        count = 0
        for place in range(width):
            other = ranking_NK[row, place]
            for back in range(width):
                if ranking_NK[other, back] == row:
                    members_NW[row, count] = other
                    count += 1
                    break
        counts_N[row] = count


@njit(nogil=True, cache=True)
def _room(entries, needed):
    """``entries``, or a longer copy if fewer than ``needed`` fit."""
    if needed <= entries.shape[0]:
        return entries
    longer = np.empty(max(needed, 2 * entries.shape[0]), dtype=entries.dtype)
    longer[: entries.shape[0]] = entries
    return longer


@njit(nogil=True, cache=True)
def expanded_sets(first, last, full_NK, full_counts_N, half_NH, half_counts_N):
    """The mutual neighbours of each row, and those of each mutual neighbour of which more than 2/3 are among them.

    Returns lengths and column indices, ascending.
    """
    total = full_NK.shape[0]
    seen_N = np.full(total, -1, dtype=np.int32)
    taken_N = np.full(total, -1, dtype=np.int32)
    lengths = np.zeros(last - first, dtype=np.int64)
    columns = np.empty(64 * (last - first) + 64, dtype=np.int32)
    end = 0
    for row in range(first, last):
        own = full_NK[row, : full_counts_N[row]]
        columns = _room(columns, end + own.shape[0] * (1 + half_NH.shape[1]))
        start = end
        for other in own:
            seen_N[other] = taken_N[other] = row
            columns[end] = other
            end += 1
        for other in own:
            half = half_NH[other, : half_counts_N[other]]
            shared = 0
            for member in half:
                shared += seen_N[member] == row
            if 3 * shared > 2 * half.shape[0]:
                for member in half:
                    if taken_N[member] != row:
                        taken_N[member] = row
                        columns[end] = member
                        end += 1
        columns[start:end].sort()
        lengths[row - first] = end - start
    return lengths, columns[:end].copy()


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _inner_product(left_D, right_D):
    total = left_D.dtype.type(0)
    for d in range(left_D.shape[0]):
        total += left_D[d] * right_D[d]
    return total


@njit(nogil=True, cache=True)
def inner_products(first, last, chain_N, features_ND, starts, columns, products):
    """<f_i, f_j> for every entry j of the rows i of a range of the chain, in the features' dtype."""
    for row in chain_N[first:last]:
        for entry in range(starts[row], starts[row + 1]):
            products[entry] = _inner_product(features_ND[row], features_ND[columns[entry]])


@njit(nogil=True, cache=True)
def averaged_rows(first, last, weight_starts, weight_columns, weights, starts, columns, values):
    """Rows of W V, each summed in the order of its row of W. Returns lengths, columns (ascending) and values."""
    total = starts.shape[0] - 1
    sums_N = np.zeros(total, dtype=values.dtype)
    seen_N = np.full(total, -1, dtype=np.int32)
    lengths = np.zeros(last - first, dtype=np.int64)
    found_columns = np.empty(128 * (last - first) + 128, dtype=np.int32)
    found_values = np.empty(found_columns.shape[0], dtype=values.dtype)
    end = 0
    for row in range(first, last):
        start = end
        for place in range(weight_starts[row], weight_starts[row + 1]):
            other, weight = weight_columns[place], weights[place]
            found_columns = _room(found_columns, end + starts[other + 1] - starts[other])
            for entry in range(starts[other], starts[other + 1]):
                column = columns[entry]
                if seen_N[column] != row:
                    seen_N[column] = row
                    sums_N[column] = 0
                    found_columns[end] = column
                    end += 1
                sums_N[column] += weight * values[entry]
        found_columns[start:end].sort()
        found_values = _room(found_values, end)
        for place in range(start, end):
            found_values[place] = sums_N[found_columns[place]]
        lengths[row - first] = end - start
    return lengths, found_columns[:end].copy(), found_values[:end].copy()


@njit(nogil=True, cache=True)
def later_pairs(first, last, chain_N, starts, columns, values, column_starts, rows, column_values, limit):
    """Distances below 1, and no greater than ``limit``, from each row i of a range of the chain to rows j > i.

    ``starts``, ``columns``, ``values``: the encoding by rows; ``column_starts``, ``rows``, ``column_values``: by
    columns, rows ascending. The shared mass is summed over ascending columns in float64. Returns lengths, indices
    (ascending) and distances in the dtype of the encoding.
    """
    shared_N = np.zeros(starts.shape[0] - 1)
    touched_N = np.empty(starts.shape[0] - 1, dtype=np.int32)
    lengths = np.zeros(last - first, dtype=np.int64)
    found = np.empty(64 * (last - first) + 64, dtype=np.int32)
    distances = np.empty(found.shape[0], dtype=values.dtype)
    end = 0
    for step, row in enumerate(chain_N[first:last]):
        touched = 0
        for entry in range(starts[row], starts[row + 1]):
            column, value = columns[entry], values[entry]
            for place in range(column_starts[column + 1] - 1, column_starts[column] - 1, -1):
                other = rows[place]
                if other <= row:
                    break
                mass = min(value, column_values[place])
                if shared_N[other] == 0 and mass > 0:
                    touched_N[touched] = other
                    touched += 1
                shared_N[other] += mass
        start = end
        found = _room(found, end + touched)
        for other in touched_N[:touched]:
            mass = shared_N[other]
            distance = values.dtype.type(max(1 - mass / (2 - mass), 0.0))
            if distance < 1 and distance <= limit:
                found[end] = other
                end += 1
            else:
                shared_N[other] = 0
        found[start:end].sort()
        distances = _room(distances, end)
        for place in range(start, end):
            mass = shared_N[found[place]]
            distances[place] = max(1 - mass / (2 - mass), 0.0)
            shared_N[found[place]] = 0
        lengths[step] = end - start
    return lengths, found[:end].copy(), distances[:end].copy()


@njit(nogil=True, cache=True)
def symmetric_starts(chain_N, pair_starts, pairs):
    """Row pointer of the symmetric matrix with a diagonal; rows above the diagonal are given in the chain's order."""
    total = chain_N.shape[0]
    starts = np.zeros(total + 1, dtype=np.int64)
    for step in range(total):
        starts[chain_N[step] + 1] += 1 + pair_starts[step + 1] - pair_starts[step]
        for place in range(pair_starts[step], pair_starts[step + 1]):
            starts[pairs[place] + 1] += 1
    return np.cumsum(starts)


@njit(nogil=True, cache=True)
def fill_symmetric(chain_N, pair_starts, pairs, distances, starts, columns, values):
    """Writes the symmetric matrix, columns ascending, zeros on the diagonal."""
    total = chain_N.shape[0]
    step_N = np.empty(total, dtype=np.int32)
    step_N[chain_N] = np.arange(total, dtype=np.int32)
    free = starts[:-1].copy()
    for row in range(total):
        step = step_N[row]
        columns[free[row]] = row
        values[free[row]] = 0
        free[row] += 1
        for place in range(pair_starts[step], pair_starts[step + 1]):
            other = pairs[place]
            columns[free[row]], values[free[row]] = other, distances[place]
            columns[free[other]], values[free[other]] = row, distances[place]
            free[row] += 1
            free[other] += 1
