"""DBSCAN on a sparse graph of distances."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from harness.errors import HarnessError, SettingsError

OUTLIER = -1
_UNSEEN = -2


def dbscan(distances_NN: csr_matrix, *, eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    """Cluster labels from pairwise distances, in time linear in the stored pairs.

    ``distances_NN`` CSR [N, N], symmetric: a stored zero is a distance of 0; a pair that is not stored is
    never a neighbour, whatever ``eps``. A point is always its own neighbour. ``eps``: the radius, inclusive.
    ``min_samples``: neighbours, itself included, that make a core point.

    Returns int64 [N]: clusters from 0 in the order of their first core point; a border point belongs to the
    first cluster that reaches it; −1 = outlier. The labels are those of scikit-learn's DBSCAN (baseline.md 4.2).

    Raises ``SettingsError`` for eps ≤ 0 or min_samples < 1, ``HarnessError`` for negative or missing
    distances.

    >>> pairs = ([0.1, 0.1, 0.2, 0.2], ([0, 1, 1, 2], [1, 0, 2, 1]))
    >>> dbscan(csr_matrix(pairs, shape=(4, 4)), eps=0.5, min_samples=2)
    array([ 0,  0,  0, -1])
    """
    if not 0 < eps < np.inf:
        raise SettingsError(f"eps = {eps} was given to DBSCAN; a radius above 0 was expected.")
    if min_samples < 1:
        raise SettingsError(f"min_samples = {min_samples} was given to DBSCAN; at least 1 was expected.")
    if distances_NN.shape[0] != distances_NN.shape[1]:
        raise HarnessError(f"DBSCAN was given distances of shape {distances_NN.shape}; a square matrix was expected.")
    distances = distances_NN if distances_NN.has_canonical_format else _canonical(distances_NN)
    if not bool((distances.data >= 0).all()):
        raise HarnessError("DBSCAN was given negative or NaN distances; check how they were computed.")
    # The radius in the precision of the distances: 0.6 in float32 is not 0.6 in float64.
    radius = np.result_type(distances.dtype, np.float32).type(eps)
    return _labels(distances.indptr, distances.indices, distances.data, radius, min_samples)


def _canonical(distances_NN: csr_matrix) -> csr_matrix:
    copy = distances_NN.copy()
    copy.sum_duplicates()
    return copy


@njit(nogil=True, cache=True)
def _labels(
    starts: NDArray[np.integer],
    columns: NDArray[np.integer],
    distances: NDArray[np.floating],
    radius: np.floating,
    min_samples: int,
) -> NDArray[np.int64]:
    """Clusters grown from unseen core points in index order."""
    total = starts.shape[0] - 1
    core_N = np.zeros(total, dtype=np.bool_)
    for row in range(total):
        neighbours = 1
        for entry in range(starts[row], starts[row + 1]):
            neighbours += columns[entry] != row and distances[entry] <= radius
        core_N[row] = neighbours >= min_samples
    labels_N = np.full(total, _UNSEEN, dtype=np.int64)
    waiting_N = np.empty(total, dtype=np.int64)
    label = 0
    for seed in range(total):
        if labels_N[seed] != _UNSEEN or not core_N[seed]:
            continue
        labels_N[seed], waiting_N[0], waiting = label, seed, 1
        while waiting:
            waiting -= 1
            row = waiting_N[waiting]
            for entry in range(starts[row], starts[row + 1]):
                other = columns[entry]
                if distances[entry] <= radius and labels_N[other] == _UNSEEN:
                    labels_N[other] = label
                    if core_N[other]:
                        waiting_N[waiting] = other
                        waiting += 1
        label += 1
    for row in range(total):
        if labels_N[row] == _UNSEEN:
            labels_N[row] = OUTLIER
    return labels_N
