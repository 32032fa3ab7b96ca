"""Exact nearest neighbours, the same on every backend.

A backend only proposes candidates, by float32 distances that carry rounding errors. The order is then settled
by distances recomputed from coordinate differences, so that faiss, torch, any device and any number of
threads give one answer.

Shape letters: N rows, D feature size, B rows of a block, C candidates per row, K neighbours.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.clustering.checks import checked_features
from harness.errors import SettingsError

Backend = Literal["auto", "faiss", "torch"]

_SPARE = 16
"""Candidates taken beyond the K asked for: they show whether the cut at K is beyond doubt."""

_MOST_TIED = 512
"""At least so many rows of indistinguishable distance are compared exactly; beyond, lower indices go first."""

_ROUNDING = 1e-5
"""Bound on the error of a float32 squared distance, relative to the squared norms."""

_REFINE_ELEMENTS = 1 << 21
"""Coordinates gathered at once when distances are recomputed."""


def nearest_neighbours(features_ND: Tensor, k: int, *, backend: Backend = "auto", block: int = 1024) -> Tensor:
    """The k nearest rows of every row by squared L2 distance, the row itself included.

    ``features_ND`` float [N, D], used as given (not normalised), on any device. ``block``: rows whose
    distances to all others are held at once by the torch backend.

    Returns int64 [N, min(k, N)] on the device of the features: nearest first; among equal distances the lower
    index goes first, also at the cut. (So a row with k duplicates of lower index is not in its own list.)
    Where more than max(512, 8k) rows lie within rounding of the k-th distance, they count as equal.

    ``backend``: "faiss" (features are copied to the CPU), "torch", or "auto": faiss for features on the CPU
    if it is installed, else torch. Both give the same result.

    Raises ``TrainingError`` for features that are not finite, ``SettingsError`` for k < 1 or a missing
    backend.
    """
    features = checked_features(features_ND)
    if k < 1 or block < 1:
        raise SettingsError(f"k = {k} neighbours in blocks of {block} rows were asked for; both must be at least 1.")
    total = features.shape[0]
    k = min(k, total)
    if total == 0:
        return torch.empty(0, 0, dtype=torch.int64, device=features.device)
    faiss = _faiss(backend, features.device)
    rough = _RoughDistances(features)
    neighbours_NK = torch.empty(total, k, dtype=torch.int64, device=features.device)
    count = min(k + _SPARE, total)
    for start in range(0, total, block):
        rows_B = torch.arange(start, min(start + block, total), device=features.device)
        if faiss is None:
            distances_BC, candidates_BC = rough.to_all(rows_B).topk(count, dim=1, largest=False, sorted=True)
        else:
            distances_BC, candidates_BC = rough.by_faiss(faiss, rows_B, count)
        neighbours_NK[rows_B] = _settled(features, rows_B, candidates_BC, k)
        if count < total:
            doubtful_B = distances_BC[:, -1] - distances_BC[:, k - 1] <= 2 * rough.error(rows_B)
            for part_B in _parts(rows_B[doubtful_B], max(1, block // 8)):
                neighbours_NK[part_B] = _settled(features, part_B, rough.undecided(part_B, k), k)
    return neighbours_NK


class _RoughDistances:
    """Squared distances by |x|² + |y|² − 2xy, good enough to propose candidates."""

    def __init__(self, features_ND: Tensor) -> None:
        # With reduced-precision products (TF32, bfloat16) the bound on the rounding error would not hold.
        exact_products = torch.get_float32_matmul_precision() == "highest"
        self.features_ND = features_ND if exact_products else features_ND.double()
        self.norms_N = self.features_ND.square().sum(dim=1)
        self.largest_norm = self.norms_N.max()
        self._index: Any = None

    def error(self, rows_B: Tensor) -> Tensor:
        return _ROUNDING * (self.norms_N[rows_B] + self.largest_norm)

    def to_all(self, rows_B: Tensor) -> Tensor:
        products_BN = self.features_ND[rows_B] @ self.features_ND.T
        return products_BN.mul_(-2).add_(self.norms_N).add_(self.norms_N[rows_B, None])

    def by_faiss(self, faiss: ModuleType, rows_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` nearest rows: distances and indices [B, count], nearest first."""
        if self._index is None:
            self._array_ND = np.ascontiguousarray(self.features_ND.float().cpu().numpy())
            self._index = faiss.IndexFlatL2(self._array_ND.shape[1])
            self._index.add(self._array_ND)
        found = self._index.search(self._array_ND[rows_B.cpu().numpy()], count)
        device = rows_B.device
        return torch.from_numpy(found[0]).to(device), torch.from_numpy(found[1]).to(device)

    def undecided(self, rows_B: Tensor, k: int) -> Tensor:
        """Candidates [B, C] that hold every row which may be among the k nearest.

        Rows surely nearer than the k-th come first, then rows within rounding of it, each by index; the list
        is cut at C = max(512, 8k).
        """
        distances_BN = self.to_all(rows_B)
        margin_B1 = 2 * self.error(rows_B)[:, None]
        kth_B1 = distances_BN.kthvalue(k, dim=1, keepdim=True).values
        possible_BN = distances_BN <= kth_B1 + margin_B1
        sure_BN = distances_BN < kth_B1 - margin_B1
        total = distances_BN.shape[1]
        columns_N = torch.arange(total, device=rows_B.device)
        keys_BN = columns_N - total * sure_BN.long() + total * (~possible_BN).long()
        count = min(max(k, int(possible_BN.sum(dim=1).max())), max(_MOST_TIED, 8 * k))
        return keys_BN.topk(count, dim=1, largest=False).values % total


def _parts(rows_B: Tensor, size: int) -> tuple[Tensor, ...]:
    return rows_B.split(size) if rows_B.numel() else ()


def _settled(features_ND: Tensor, rows_B: Tensor, candidates_BC: Tensor, k: int) -> Tensor:
    """The k nearest of the candidates [B, k], by recomputed distance and then by index."""
    candidates_BC = candidates_BC.sort(dim=1).values
    rows_at_once = max(1, _REFINE_ELEMENTS // max(1, candidates_BC.shape[1] * features_ND.shape[1]))
    parts = []
    for rows_b, candidates_bC in zip(rows_B.split(rows_at_once), candidates_BC.split(rows_at_once), strict=True):
        differences_bCD = features_ND[candidates_bC].sub_(features_ND[rows_b, None])
        distances_bC = differences_bCD.square_().sum(dim=2, dtype=torch.float64)
        order_bC = distances_bC.sort(dim=1, stable=True).indices
        parts.append(candidates_bC.gather(1, order_bC[:, :k]))
    return torch.cat(parts)


def _faiss(backend: Backend, device: torch.device) -> ModuleType | None:
    """The faiss module if this backend is to use it, None for torch."""
    if backend not in ("auto", "faiss", "torch"):
        raise SettingsError(f"Neighbour backend {backend!r} was asked for; known: auto, faiss, torch.")
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return None
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        if backend == "auto":
            return None
        raise SettingsError(
            'Neighbour backend "faiss" was asked for, but faiss cannot be imported '
            f'({error}). Install faiss, or use backend "torch", which gives the same neighbours.'
        ) from error
