"""Rows of a sparse matrix as tensors: what the steps of the Jaccard distance pass on.

Shape letters: N rows, P stored entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.clustering.coarse import numbers


@dataclass(frozen=True, slots=True, eq=False)
class CompressedRows:
    """Row i has the entries ``starts_N1[i]`` to ``starts_N1[i + 1]`` of ``columns_P`` and ``values_P``.

    ``starts_N1`` int64 [N + 1], ``columns_P`` int32 [P], ``values_P`` float32 or float64 [P], all on one device;
    ``width``: the number of columns.
    """

    starts_N1: Tensor
    columns_P: Tensor
    values_P: Tensor
    width: int

    @staticmethod
    def of(matrix: csr_matrix, *, device: torch.device | str = "cpu") -> CompressedRows:
        """The rows of a matrix, entries in its order."""
        starts, columns, values = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
        return CompressedRows(starts.to(device).long(), columns.to(device).int(), values.to(device), matrix.shape[1])

    def matrix(self) -> csr_matrix:
        """A scipy matrix [N, width]; of rows on the CPU it shares the memory."""
        arrays = (numbers(self.values_P), numbers(self.columns_P), numbers(self.starts_N1))
        return csr_matrix(arrays, shape=(self.total, self.width))

    @property
    def total(self) -> int:
        """The number of rows."""
        return self.starts_N1.numel() - 1
