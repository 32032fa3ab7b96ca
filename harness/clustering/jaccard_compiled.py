"""The steps of the Jaccard distance as compiled kernels on the CPU; ``jaccard`` says what each one computes.

Shape letters: N images, D feature size, K length of a rank list, P entries.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.clustering import jaccard_kernels as kernels
from harness.clustering.chain import chain
from harness.clustering.coarse import numbers
from harness.clustering.compressed import CompressedRows
from harness.clustering.memory import overlap_bytes, require_memory
from harness.clustering.threads import over_rows
from harness.progress import Progress


def encoding(features_ND: Tensor, ranking_NK: Tensor, *, half: int, progress: Progress | None = None) -> CompressedRows:
    """``jaccard.k_reciprocal_encoding``; inner products and exponentials in the features' dtype."""
    total, k = ranking_NK.shape
    features, ranking = numbers(features_ND), numbers(ranking_NK.int())
    sets = (*_mutual(ranking, k), *_mutual(ranking, half))
    lengths, columns = _rows(over_rows(kernels.expanded_sets, total, *sets), np.int32)
    starts = _starts(lengths)
    products = np.empty(columns.size, dtype=features.dtype)
    chain_N = chain(starts[:-1], starts[1:], columns)
    over_rows(kernels.inner_products, total, chain_N, features, starts, columns, products, progress=progress)
    return _compressed(starts, columns, _softmax_of_rows(2 * products - 2, starts), width=total)


def expanded(encoding: CompressedRows, averages: CompressedRows, *, progress: Progress | None = None) -> CompressedRows:
    """``jaccard.expanded``: every entry is summed in the dtype of the encoding, in the order of its row of averages."""
    rows = [numbers(part) for part in (encoding.starts_N1, encoding.columns_P, encoding.values_P)]
    weights = numbers(averages.values_P.to(encoding.values_P.dtype))
    averaging = (numbers(averages.starts_N1), numbers(averages.columns_P), weights)
    found = over_rows(kernels.averaged_rows, averages.total, *averaging, *rows, progress=progress)
    lengths, columns, values = _rows(found, np.int32, rows[2].dtype)
    return _compressed(_starts(lengths), columns, values, width=encoding.width)


def distance(
    encoding: CompressedRows, *, max_distance: float | None = None, progress: Progress | None = None
) -> CompressedRows:
    """``jaccard.jaccard_distance``: the shared mass is summed in float64, over ascending columns."""
    by_row = encoding.matrix()
    total, dtype = encoding.total, by_row.dtype
    require_memory(overlap_bytes(total, by_row.nnz), "The overlap", by_row.shape)
    by_column = by_row.tocsc()
    # Compared in the precision of the distances, as the radius of DBSCAN is.
    limit = dtype.type(np.inf if max_distance is None else max_distance)
    chain_N = chain(by_row.indptr[:-1], by_row.indptr[1:], by_row.indices)
    arrays = (chain_N, by_row.indptr, by_row.indices, by_row.data, by_column.indptr, by_column.indices, by_column.data)
    found = over_rows(kernels.later_pairs, total, *arrays, limit, progress=progress)
    del by_column, arrays
    lengths, pairs, distances = _rows(found, np.int32, dtype)
    pair_starts = _starts(lengths)
    starts = kernels.symmetric_starts(chain_N, pair_starts, pairs)
    columns, values = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=dtype)
    kernels.fill_symmetric(chain_N, pair_starts, pairs, distances, starts, columns, values)
    return _compressed(starts, columns, values, width=total)


def _compressed(
    starts: NDArray[np.int64], columns: NDArray[np.int32], values: NDArray[np.floating], *, width: int
) -> CompressedRows:
    return CompressedRows(torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), width)


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


def _softmax_of_rows(logits_P: NDArray[np.floating], starts: NDArray[np.integer]) -> NDArray[np.floating]:
    """Softmax within each compressed row of ``logits_P``; ``starts`` is the row pointer."""
    lengths = np.diff(starts)
    filled = lengths > 0
    lengths, first = lengths[filled], starts[:-1][filled]
    weights = np.exp(logits_P - np.repeat(np.maximum.reduceat(logits_P, first), lengths))
    sums = np.add.reduceat(weights, first, dtype=np.float64)
    return (weights / np.repeat(sums, lengths)).astype(logits_P.dtype)
