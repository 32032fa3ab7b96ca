"""Compiled kernels of the memory updates on the CPU: the sequential definitions as they stand, without a copy.

All arrays are contiguous, banks and queries of one dtype, labels int64 with −1 = write nothing. ``kept`` is the
momentum and ``taken`` 1 − momentum, scalars of that dtype. Shape letters: K clusters, J centres of a cluster, B queries
of a batch, D feature size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FAST = {"reassoc", "contract", "nsz"}
"""Sums in any order, for vector units; nothing else is given up."""


@njit(nogil=True, cache=True, fastmath=_FAST)
def follow_queries(bank_KJD: Any, queries_BD: Any, labels_B: Any, kept: Any, taken: Any) -> None:
    """Every query in batch order moves the most similar centre of its cluster (ties: the first)."""
    for b in range(len(labels_B)):
        if labels_B[b] >= 0:
            centres_JD = bank_KJD[labels_B[b]]
            _move(centres_JD[_nearest(centres_JD, queries_BD[b])], queries_BD[b], kept, taken)


@njit(nogil=True, cache=True, fastmath=_FAST)
def move_to_farthest(bank_KD: Any, queries_BD: Any, labels_B: Any, kept: Any, taken: Any) -> None:
    """Every row moves once, to its least similar query (ties: the first)."""
    order_B = np.argsort(labels_B, kind="mergesort")
    first = 0
    while first < len(order_B):
        last = _end_of_run(labels_B, order_B, first)
        label = labels_B[order_B[first]]
        if label >= 0:
            farthest_D = _mean_of_farthest(bank_KD[label], queries_BD, order_B[first:last], 1)
            _move(bank_KD[label], farthest_D, kept, taken)
        first = last


@njit(nogil=True, cache=True, fastmath=_FAST)
def move_to_mean_and_farthest(
    centroids_KD: Any, hard_KD: Any, queries_BD: Any, labels_B: Any, kept: Any, taken: Any, hardest: Any
) -> None:
    """A centroid moves once to its mean query, its hard row to the mean of the ``hardest`` queries least like it."""
    order_B = np.argsort(labels_B, kind="mergesort")
    first = 0
    while first < len(order_B):
        last = _end_of_run(labels_B, order_B, first)
        label = labels_B[order_B[first]]
        if label >= 0:
            run = order_B[first:last]
            _move(hard_KD[label], _mean_of_farthest(centroids_KD[label], queries_BD, run, hardest), kept, taken)
            _move(centroids_KD[label], _mean(queries_BD, run), kept, taken)
        first = last


@njit(nogil=True, cache=True)
def _end_of_run(labels_B: Any, order_B: Any, first: Any) -> Any:
    last = first + 1
    while last < len(order_B) and labels_B[order_B[last]] == labels_B[order_B[first]]:
        last += 1
    return last


@njit(nogil=True, cache=True, fastmath=_FAST)
def _mean_of_farthest(row_D: Any, queries_BD: Any, run: Any, count: Any) -> Any:
    similarity = np.empty(len(run), dtype=np.float64)
    for place in range(len(run)):
        similarity[place] = _inner_product(queries_BD[run[place]], row_D)
    # Unlike argsort, argmin is quick for the one query that is usually wanted.
    if count == 1:
        return queries_BD[run[np.argmin(similarity)]].copy()
    return _mean(queries_BD, run[np.argsort(similarity, kind="mergesort")[:count]])


@njit(nogil=True, cache=True, fastmath=_FAST)
def _mean(queries_BD: Any, run: Any) -> Any:
    mean_D = queries_BD[run[0]].copy()
    for place in range(1, len(run)):
        query_D = queries_BD[run[place]]
        for d in range(len(mean_D)):
            mean_D[d] += query_D[d]
    for d in range(len(mean_D)):
        mean_D[d] /= len(run)
    return mean_D


@njit(nogil=True, cache=True, fastmath=_FAST)
def _nearest(centres_JD: Any, query_D: Any) -> Any:
    nearest = 0
    if centres_JD.shape[0] > 1:
        best = _inner_product(centres_JD[0], query_D)
        for j in range(1, centres_JD.shape[0]):
            similarity = _inner_product(centres_JD[j], query_D)
            if similarity > best:
                nearest, best = j, similarity
    return nearest


@njit(nogil=True, cache=True, fastmath=_FAST)
def _inner_product(left_D: Any, right_D: Any) -> Any:
    total = left_D[0] * right_D[0]
    for d in range(1, len(left_D)):
        total += left_D[d] * right_D[d]
    return total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _move(row_D: Any, towards_D: Any, kept: Any, taken: Any) -> None:
    for d in range(len(row_D)):
        row_D[d] = kept * row_D[d] + taken * towards_D[d]
    length = row_D.dtype.type(max(np.sqrt(_inner_product(row_D, row_D)), 1e-12))
    for d in range(len(row_D)):
        row_D[d] /= length
