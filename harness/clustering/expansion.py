"""Query expansion of the k-reciprocal encoding: whose encodings are averaged, with which weights.

An expansion turns the rank lists into an averaging matrix W [N, N], with which the encoding V becomes W V.
Every row of W is non-negative and sums to 1. This is the seam for methods that balance modalities or cameras.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.errors import HarnessError


class Expansion(Protocol):
    """To implement an expansion, write a callable of this shape."""

    def __call__(self, ranking_NK: NDArray[np.int64], k2: int, /) -> csr_matrix:
        """``ranking_NK`` int64 [N, K]: nearest rows of each row, itself normally first. Returns W, float64 [N, N]."""
        ...


def plain(ranking_NK: NDArray[np.int64], k2: int, /) -> csr_matrix:
    """The plain mean over the first k2 entries of the rank list (all K of them if K < k2).

    Source: k-reciprocal re-ranking's local query expansion, as in baseline.md 4.1 step 5.
    """
    nearest = ranking_NK[:, :k2]
    return averaging_matrix(nearest, np.full(nearest.shape, 1.0 / max(1, nearest.shape[1])))


def modality_balanced(modality_N: Tensor) -> Expansion:
    """An expansion in which visible and infrared neighbours weigh the same.

    ``modality_N`` int [N]. Of the first k2 neighbours each modality is averaged separately, then the two
    means; if one modality is absent, the other's mean alone. Source: PCLHD (NeurIPS 2024), released code;
    pclhd.md 3.2.

    The expansion raises ``HarnessError`` when N is not the number of ranked rows.
    """
    modality = modality_N.detach().cpu().numpy()

    def expand(ranking_NK: NDArray[np.int64], k2: int, /) -> csr_matrix:
        if modality.shape != ranking_NK.shape[:1]:
            raise HarnessError(
                f"The modality of {modality.size} rows was given for the expansion of {ranking_NK.shape[0]}; give one "
                "code per feature row."
            )
        nearest = ranking_NK[:, :k2]
        codes = modality[nearest]
        weights = np.zeros(nearest.shape)
        present = np.zeros((nearest.shape[0], 1))
        for code in np.unique(modality):
            own = codes == code
            count = own.sum(axis=1, keepdims=True)
            weights += own / np.maximum(count, 1)
            present += count > 0
        return averaging_matrix(nearest, weights / np.maximum(present, 1))

    return expand


def averaging_matrix(nearest_NK: NDArray[np.int64], weights_NK: NDArray[np.float64]) -> csr_matrix:
    """The sparse matrix [N, N] that holds ``weights_NK`` at the columns ``nearest_NK`` of each row."""
    total, width = nearest_NK.shape
    starts = np.arange(0, total * width + 1, width) if width else np.zeros(total + 1, dtype=np.int64)
    return csr_matrix((weights_NK.ravel(), nearest_NK.ravel(), starts), shape=(total, total))
