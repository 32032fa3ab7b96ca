"""The clustering of the field, written plainly: flat index search, Python loops, dense N × N arrays, scikit-learn.

Steps and shapes as in baseline.md 4.1 and 4.2. It is the yardstick for time and memory and the oracle for labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN


def flat_search(features_ND: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k nearest rows of every row by a flat faiss index [N, k]."""
    import faiss

    index = faiss.IndexFlatL2(features_ND.shape[1])
    index.add(features_ND)
    return index.search(features_ND, k)[1]


def mutual(lists: NDArray[np.int64], row: int, width: int) -> NDArray[np.int64]:
    own = lists[row, :width]
    return own[np.nonzero(lists[own, :width] == row)[0]]


def dense_jaccard(
    features_ND: NDArray[np.float32], *, k1: int = 30, k2: int = 6, lists: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Distances [N, N], float32. ``lists``: rank lists found elsewhere."""
    total = len(features_ND)
    k1 = min(k1, total)
    lists = flat_search(features_ND, k1) if lists is None else lists
    half_width = min(round(k1 / 2) + 1, k1)
    full = [mutual(lists, row, k1) for row in range(total)]
    half = [mutual(lists, row, half_width) for row in range(total)]
    encoding = np.zeros((total, total), dtype=np.float32)
    for row, own in enumerate(full):
        members = own
        for other in own:
            shared = np.intersect1d(half[other], own)
            if 3 * len(shared) > 2 * len(half[other]):
                members = np.append(members, half[other])
        members = np.unique(members)
        if len(members):
            distances = 2 - 2 * (features_ND[members] @ features_ND[row])
            weights = np.exp(distances.min() - distances)
            encoding[row, members] = weights / weights.sum()
    if k2 > 1:
        averaged = np.empty_like(encoding)
        for row in range(total):
            averaged[row] = encoding[lists[row, :k2]].mean(axis=0)
        encoding = averaged
    holders = [np.nonzero(encoding[:, column])[0] for column in range(total)]
    result = np.empty((total, total), dtype=np.float32)
    for row in range(total):
        shared = np.zeros(total, dtype=np.float32)
        for column in np.nonzero(encoding[row])[0]:
            own = holders[column]
            shared[own] += np.minimum(encoding[row, column], encoding[own, column])
        result[row] = 1 - shared / (2 - shared)
    result[result < 0] = 0
    return result


def dense_labels(distances_NN: NDArray[np.float32], *, eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances_NN).labels_
