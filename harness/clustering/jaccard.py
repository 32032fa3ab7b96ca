"""The k-reciprocal Jaccard distance, sparse from end to end.

Two images are near when the sets of their k-reciprocal neighbours overlap. Only pairs that share a neighbour
have a distance below 1; only those are ever formed. Source: Zhong et al., "Re-ranking person
re-identification with k-reciprocal encoding" (CVPR 2017), in the form that unsupervised re-identification
uses (baseline.md 4.1).

Shape letters: N images, D feature size, K length of a rank list.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.clustering import jaccard_kernels as kernels
from harness.clustering.checks import checked_features
from harness.clustering.coarse import numbers
from harness.clustering.expansion import Expansion, plain
from harness.clustering.memory import clustering_bytes, overlap_bytes, require_memory
from harness.clustering.neighbours import Backend, nearest_neighbours
from harness.clustering.threads import over_rows, part_of
from harness.errors import ContractError, HarnessError, SettingsError
from harness.progress import Progress, progress_of

_PASSES = 4
"""Passes over the rows, as progress counts them: neighbours, encoding, averages, distances."""

_GATHERED_ELEMENTS = 1 << 22
"""Coordinates gathered at once for inner products on an accelerator."""


def k_reciprocal_jaccard(
    features_ND: Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    expansion: Expansion = plain,
    backend: Backend = "auto",
    max_distance: float | None = None,
    ranking_NK: Tensor | None = None,
    progress: Progress | None = None,
) -> csr_matrix:
    """The k-reciprocal Jaccard distance of all pairs of rows.

    ``features_ND`` float [N, D], used as given: a row shorter than 1 changes the result. ``k1``: length of
    the rank lists, the row itself included; more than N is taken as N. ``k2``: rank-list entries whose
    encodings are averaged; 1 leaves them as they are. ``expansion``: how they are averaged. ``max_distance``:
    leave out pairs that are farther apart, which saves memory when the next step has a radius. ``ranking_NK``: rank
    lists int64 [N, K] found elsewhere (``approximate_neighbours``), in place of the exact ones; they may be longer than
    k1, for an expansion that looks farther. ``progress`` (default: whoever listens, see ``harness.progress``) is told
    the rows done in four passes, of 4N.

    Returns a symmetric CSR matrix [N, N], float32 (float64 for float64 features): distances in [0, 1). A pair
    that is not stored has distance 1 (or is beyond ``max_distance``); a stored zero is a distance of 0, the
    diagonal among them. The same bits for any backend and number of threads.

    Raises ``TrainingError`` for features that are not finite, ``SettingsError`` for k1 or k2 below 1 or for more rows
    than fit in memory, ``ContractError`` for an expansion that does not average.
    """
    if k1 < 1 or k2 < 1:
        raise SettingsError(f"k1 = {k1} and k2 = {k2} were given for the Jaccard distance; both must be at least 1.")
    progress = progress or progress_of("clustering")
    features = checked_features(features_ND)
    total, size = features.shape
    require_memory(clustering_bytes(total, size, k1=k1, k2=k2), "The Jaccard distance", features.shape)
    if ranking_NK is None:
        part = part_of(progress, 0, _PASSES)
        ranking_NK = nearest_neighbours(features, k1, backend=backend, progress=part)
    ranking = numbers(ranking_NK.long())
    encoding_NN = k_reciprocal_encoding(features, ranking[:, :k1], progress=part_of(progress, 1, _PASSES))
    if k2 > 1:
        averages_NN = _checked_averages(expansion(ranking, k2), total)
        encoding_NN = expanded(encoding_NN, averages_NN, progress=part_of(progress, 2, _PASSES))
    return jaccard_distance(encoding_NN, max_distance=max_distance, progress=part_of(progress, 3, _PASSES))


def k_reciprocal_encoding(
    features_ND: Tensor, ranking_NK: NDArray[np.int64], *, progress: Progress | None = None
) -> csr_matrix:
    """Each image as a distribution over its expanded k-reciprocal neighbours, k = K (baseline.md 4.1, steps 2 to 4).

    ``features_ND`` float [N, D]; ``ranking_NK`` int64 [N, K], nearest first, each row's own index normally
    first.

    Returns CSR [N, N] of the features' dtype. Rows sum to 1; the row of an image that is in nobody's list,
    itself included (possible only with K duplicates), is empty.

    Raises ``HarnessError`` for rank lists that do not belong to the features.
    """
    total, k = ranking_NK.shape
    if total != features_ND.shape[0] or (ranking_NK.size and not 0 <= ranking_NK.min() <= ranking_NK.max() < total):
        raise HarnessError(
            f"Rank lists {ranking_NK.shape} were given for {features_ND.shape[0]} features; one list of row indices "
            "per feature was expected."
        )
    features = checked_features(features_ND)
    ranking = ranking_NK.astype(np.int32)
    full, half = _mutual(ranking, k), _mutual(ranking, min(round(k / 2) + 1, k))
    lengths, columns = _rows(over_rows(kernels.expanded_sets, total, *full, *half), np.int32)
    starts = _starts(lengths)
    logits = 2 * _inner_products(features, starts, columns, progress=progress) - 2
    return csr_matrix((_softmax_of_rows(logits, starts), columns, starts), shape=(total, total))


def expanded(encoding_NN: csr_matrix, averages_NN: csr_matrix, *, progress: Progress | None = None) -> csr_matrix:
    """The encoding with every row replaced by the average that its row of ``averages_NN`` describes."""
    total, dtype = encoding_NN.shape[0], encoding_NN.dtype
    averages = (averages_NN.indptr, averages_NN.indices, averages_NN.data.astype(dtype))
    encoding = (encoding_NN.indptr, encoding_NN.indices, encoding_NN.data)
    found = over_rows(kernels.averaged_rows, total, *averages, *encoding, progress=progress)
    lengths, columns, values = _rows(found, np.int32, dtype)
    return csr_matrix((values, columns, _starts(lengths)), shape=(total, encoding_NN.shape[1]))


def jaccard_distance(
    encoding_NN: csr_matrix, *, max_distance: float | None = None, progress: Progress | None = None
) -> csr_matrix:
    """1 − s / (2 − s) with s_ij = Σ_l min(V_il, V_jl), for rows that sum to 1 (baseline.md 4.1 step 6).

    ``encoding_NN`` CSR [N, L], non-negative, without duplicates. Returns CSR [N, N] as
    ``k_reciprocal_jaccard`` does.
    """
    total, dtype = encoding_NN.shape[0], encoding_NN.dtype
    require_memory(overlap_bytes(total, encoding_NN.nnz), "The overlap", encoding_NN.shape)
    by_row = encoding_NN if encoding_NN.has_sorted_indices else encoding_NN.sorted_indices()
    by_column = by_row.tocsc()
    # Compared in the precision of the distances, as the radius of DBSCAN is.
    limit = dtype.type(np.inf if max_distance is None else max_distance)
    encoding = (by_row.indptr, by_row.indices, by_row.data, by_column.indptr, by_column.indices, by_column.data)
    found = over_rows(kernels.later_pairs, total, *encoding, limit, progress=progress)
    del by_column, encoding
    lengths, pairs, distances = _rows(found, np.int32, dtype)
    pair_starts = _starts(lengths)
    starts = kernels.symmetric_starts(pair_starts, pairs)
    columns, values = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=dtype)
    kernels.fill_symmetric(pair_starts, pairs, distances, starts, columns, values)
    return csr_matrix((values, columns, starts), shape=(total, total))


def _mutual(ranking_NK: NDArray[np.int32], width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of each row the rows [N, width] that are in each other's first ``width`` entries, and their number [N]."""
    total = ranking_NK.shape[0]
    members, counts = np.empty((total, width), dtype=np.int32), np.empty(total, dtype=np.int32)
    over_rows(kernels.mutual_lists, total, ranking_NK, width, members, counts)
    return members, counts


def _rows(parts: list[tuple[NDArray[np.generic], ...]], *dtypes: type | np.dtype) -> list[NDArray]:
    """Row lengths and entries of all parts, each joined; ``parts`` is emptied, so that only one copy is held."""
    empty = [np.zeros(0, dtype=dtype) for dtype in (np.int64, *dtypes)]
    columns = [list(column) for column in zip(*parts, strict=True)] or [[] for _ in empty]
    parts.clear()
    joined = []
    for column, nothing in zip(columns, empty, strict=True):
        joined.append(np.concatenate(column) if column else nothing)
        column.clear()
    return joined


def _starts(lengths_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row pointer of rows of these lengths."""
    return np.concatenate([[0], np.cumsum(lengths_N)])


def _inner_products(
    features_ND: Tensor, starts: NDArray[np.int64], columns: NDArray[np.int32], *, progress: Progress | None
) -> NDArray[np.floating]:
    """<f_i, f_j> for every entry (i, j) of compressed rows."""
    total = features_ND.shape[0]
    if features_ND.device.type == "cpu":
        features = numbers(features_ND)
        products = np.empty(columns.size, dtype=features.dtype)
        over_rows(kernels.inner_products, total, features, starts, columns, products, progress=progress)
        return products
    rows_P = torch.repeat_interleave(torch.from_numpy(np.diff(starts)).to(features_ND.device))
    found = _gathered_products(features_ND, rows_P, torch.from_numpy(columns).to(rows_P))
    if progress is not None:
        progress(total, total)
    return numbers(found)


def _gathered_products(features_ND: Tensor, rows_P: Tensor, columns_P: Tensor) -> Tensor:
    """<f_i, f_j> of P pairs of rows, with operations that every device has."""
    at_once = max(1, _GATHERED_ELEMENTS // max(1, features_ND.shape[1]))
    pairs = zip(rows_P.split(at_once), columns_P.split(at_once), strict=True)
    return torch.cat([features_ND[left].mul_(features_ND[right]).sum(dim=1) for left, right in pairs])


def _softmax_of_rows(logits: NDArray[np.floating], starts: NDArray[np.integer]) -> NDArray[np.floating]:
    """Softmax within each CSR row of ``logits``; ``starts`` is the row pointer."""
    lengths = np.diff(starts)
    filled = lengths > 0
    lengths, first = lengths[filled], starts[:-1][filled]
    weights = np.exp(logits - np.repeat(np.maximum.reduceat(logits, first), lengths))
    sums = np.add.reduceat(weights, first, dtype=np.float64)
    return (weights / np.repeat(sums, lengths)).astype(logits.dtype)


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
