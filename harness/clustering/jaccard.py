"""The k-reciprocal Jaccard distance, sparse from end to end.

Two images are near when the sets of their k-reciprocal neighbours overlap. Only pairs that share a neighbour
have a distance below 1; only those are ever formed. Source: Zhong et al., "Re-ranking person
re-identification with k-reciprocal encoding" (CVPR 2017), in the form that unsupervised re-identification
uses (baseline.md 4.1).

Shape letters: N images, D feature size, K length of a rank list.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from torch import Tensor

from harness.clustering.checks import checked_features
from harness.clustering.expansion import Expansion, plain
from harness.clustering.neighbours import Backend, nearest_neighbours
from harness.errors import ContractError, SettingsError

_CELLS = 1 << 20
"""Cells of the block of the distance matrix that is summed at once."""

_PAIRS = 1 << 19
"""Pairs of encoding entries that are compared at once."""

_GATHERED_ELEMENTS = 1 << 20
"""Coordinates gathered at once for inner products."""


def k_reciprocal_jaccard(
    features_ND: Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    expansion: Expansion = plain,
    backend: Backend = "auto",
    max_distance: float | None = None,
) -> csr_matrix:
    """The k-reciprocal Jaccard distance of all pairs of rows.

    ``features_ND`` float [N, D], used as given: a row shorter than 1 changes the result. ``k1``: length of
    the rank lists, the row itself included; more than N is taken as N. ``k2``: rank-list entries whose
    encodings are averaged; 1 leaves them as they are. ``expansion``: how they are averaged. ``max_distance``:
    leave out pairs that are farther apart, which saves memory when the next step has a radius.

    Returns a symmetric CSR matrix [N, N], float32 (float64 for float64 features): distances in [0, 1). A pair
    that is not stored has distance 1 (or is beyond ``max_distance``); a stored zero is a distance of 0, the
    diagonal among them.

    Raises ``TrainingError`` for features that are not finite, ``SettingsError`` for k1 or k2 below 1,
    ``ContractError`` for an expansion that does not average.
    """
    if k1 < 1 or k2 < 1:
        raise SettingsError(f"k1 = {k1} and k2 = {k2} were given for the Jaccard distance; both must be at least 1.")
    features = checked_features(features_ND)
    ranking_NK = nearest_neighbours(features, k1, backend=backend).cpu().numpy()
    encoding_NN = k_reciprocal_encoding(features, ranking_NK)
    if k2 > 1:
        encoding_NN = expanded(encoding_NN, _checked_averages(expansion(ranking_NK, k2), features.shape[0]))
    return jaccard_distance(encoding_NN, max_distance=max_distance)


def k_reciprocal_encoding(features_ND: Tensor, ranking_NK: NDArray[np.int64]) -> csr_matrix:
    """Each image as a distribution over its expanded k-reciprocal neighbours, k = K (baseline.md 4.1, steps 2 to 4).

    ``features_ND`` float [N, D]; ``ranking_NK`` int64 [N, K], nearest first, each row's own index normally
    first.

    Returns CSR [N, N] of the features' dtype. Rows sum to 1; the row of an image that is in nobody's list,
    itself included (possible only with K duplicates), is empty.
    """
    total, k = ranking_NK.shape
    if total == 0:
        return csr_matrix((0, 0), dtype=np.float32)
    mutual = _mutual(ranking_NK)
    half = _mutual(ranking_NK[:, : round(k / 2) + 1])
    # overlap_ij = |half_j ∩ mutual_i|, wanted where j is in mutual_i
    overlap = (mutual @ half.T).multiply(mutual).tocsr()
    sizes = np.diff(half.indptr)
    overlap.data = (3 * overlap.data > 2 * sizes[overlap.indices]).astype(np.int32)
    overlap.eliminate_zeros()
    members = (mutual + overlap @ half).tocsr()
    members.sort_indices()
    rows = np.repeat(np.arange(total), np.diff(members.indptr))
    distances = 2 - 2 * _inner_products(features_ND, rows, members.indices)
    weights = _softmax_of_rows(-distances, members.indptr)
    return csr_matrix((weights, members.indices, members.indptr), shape=(total, total))


def expanded(encoding_NN: csr_matrix, averages_NN: csr_matrix) -> csr_matrix:
    """The encoding with every row replaced by the average that its row of ``averages_NN`` describes."""
    result = (averages_NN.astype(encoding_NN.dtype) @ encoding_NN).tocsr()
    result.sort_indices()
    return result


def jaccard_distance(encoding_NN: csr_matrix, *, max_distance: float | None = None) -> csr_matrix:
    """1 − s / (2 − s) with s_ij = Σ_l min(V_il, V_jl), for rows that sum to 1 (baseline.md 4.1 step 6).

    ``encoding_NN`` CSR [N, L], non-negative, without duplicates. Returns CSR [N, N] as
    ``k_reciprocal_jaccard`` does.
    """
    total, dtype = encoding_NN.shape[0], encoding_NN.dtype
    limit = np.inf if max_distance is None else max_distance
    own = np.arange(total, dtype=np.int32)
    lefts, rights, distances = [own[:0]], [own[:0]], [np.zeros(0, dtype=dtype)]
    for first, shared in _shared_mass(encoding_NN):
        cells = np.flatnonzero(shared)
        mass = shared[cells]
        distance = np.maximum(1 - mass / (2 - mass), 0).astype(dtype)
        kept = (distance < 1) & (distance <= limit)
        row, column = np.divmod(cells[kept], total)
        lefts.append((first + row).astype(np.int32))
        rights.append(column.astype(np.int32))
        distances.append(distance[kept])
    left, right, above = np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances)
    positions = np.concatenate([left, right, own]), np.concatenate([right, left, own])
    entries = np.concatenate([above, above, np.zeros(total, dtype=dtype)])
    # Built from coordinates, because scipy's sparse sums drop the zeros that must stay stored.
    result = coo_matrix((entries, positions), shape=(total, total)).tocsr()
    result.sort_indices()
    return result


def _mutual(ranking_NK: NDArray[np.int64]) -> csr_matrix:
    """0/1 matrix of the pairs that are in each other's list."""
    total, width = ranking_NK.shape
    listed = csr_matrix(
        (np.ones(total * width, dtype=np.int32), ranking_NK.ravel(), np.arange(0, total * width + 1, width)),
        shape=(total, total),
    )
    return listed.multiply(listed.T).tocsr()


def _inner_products(
    features_ND: Tensor, rows_P: NDArray[np.integer], columns_P: NDArray[np.integer]
) -> NDArray[np.floating]:
    """<f_i, f_j> of P pairs of rows."""
    at_once = max(1, _GATHERED_ELEMENTS // max(1, features_ND.shape[1]))
    left_P = torch.as_tensor(rows_P, dtype=torch.int64, device=features_ND.device)
    right_P = torch.as_tensor(columns_P, dtype=torch.int64, device=features_ND.device)
    products = [
        features_ND[left].mul_(features_ND[right]).sum(dim=1)
        for left, right in zip(left_P.split(at_once), right_P.split(at_once), strict=True)
    ]
    return torch.cat(products).cpu().numpy()


def _softmax_of_rows(logits: NDArray[np.floating], starts: NDArray[np.integer]) -> NDArray[np.floating]:
    """Softmax within each CSR row of ``logits``; ``starts`` is the row pointer."""
    lengths = np.diff(starts)
    filled = lengths > 0
    lengths, first = lengths[filled], starts[:-1][filled]
    weights = np.exp(logits - np.repeat(np.maximum.reduceat(logits, first), lengths))
    sums = np.add.reduceat(weights, first, dtype=np.float64)
    return (weights / np.repeat(sums, lengths)).astype(logits.dtype)


def _shared_mass(encoding_NN: csr_matrix) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Blocks of Σ_l min(V_il, V_jl) for j > i: a block's first row i, and its cells [rows · N], row by row.

    Walks the inverted index: an entry (i, l) meets the later entries of column l.
    """
    total = encoding_NN.shape[0]
    by_row = encoding_NN.sorted_indices()
    by_column, place = _inverted(by_row)
    lengths = by_column.indptr[1:][by_row.indices] - place - 1
    pairs_before = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    height = max(1, _CELLS // max(1, total))
    for first in range(0, total, height):
        last = min(first + height, total)
        begin, end = by_row.indptr[first], by_row.indptr[last]
        rows = np.repeat(np.arange(last - first), np.diff(by_row.indptr[first : last + 1]))
        block = np.zeros((last - first) * total)
        for low, high in _chunks(pairs_before, begin, end):
            length = lengths[low:high]
            offsets = place[low:high] + 1 - (pairs_before[low:high] - pairs_before[low])
            met = np.repeat(offsets, length) + np.arange(pairs_before[high] - pairs_before[low])
            smaller = np.minimum(np.repeat(by_row.data[low:high], length), by_column.data[met])
            cell = np.repeat(rows[low - begin : high - begin] * total, length) + by_column.indices[met]
            block += np.bincount(cell, weights=smaller, minlength=block.size)
        yield first, block


def _inverted(by_row: csr_matrix) -> tuple[csr_matrix, NDArray[np.int64]]:
    """The matrix by columns, and for every entry of ``by_row`` its position there."""
    entries = np.arange(by_row.nnz, dtype=np.int64)
    source = csr_matrix((entries, by_row.indices, by_row.indptr), shape=by_row.shape).tocsc()
    place = np.empty_like(entries)
    place[source.data] = entries
    source.data = by_row.data[source.data]
    return source, place


def _chunks(pairs_before: NDArray[np.int64], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of entries that make at most ``_PAIRS`` pairs, or of a single entry."""
    while begin < end:
        high = int(np.searchsorted(pairs_before, pairs_before[begin] + _PAIRS, side="right")) - 1
        high = min(max(high, begin + 1), end)
        yield begin, high
        begin = high


def _checked_averages(averages_NN: csr_matrix, total: int) -> csr_matrix:
    averages = csr_matrix(averages_NN)
    if averages.shape != (total, total):
        raise ContractError(
            f"The expansion returned a matrix {averages.shape}; an averaging matrix {(total, total)} was expected."
        )
    sums = np.asarray(averages.sum(axis=1)).ravel()
    wrong = np.flatnonzero(~(np.abs(sums - 1) < 1e-4))
    if wrong.size or (averages.nnz and not averages.data.min() >= 0):
        row = (
            int(wrong[0]) if wrong.size else int(np.searchsorted(averages.indptr, averages.data.argmin(), "right")) - 1
        )
        raise ContractError(
            f"The expansion returned weights that are no average: row {row} sums to {sums[row]:.6g}. Every row must be "
            "non-negative and sum to 1."
        )
    return averages
