"""Approximate nearest neighbours, for more images than an exact search is worth, with the recall measured each time.

An inverted file: the rows are split among the cells of a k-means, and a row is compared with the rows of the cells
nearest to it. Nothing uses this unless asked; whoever does reports ``ApproximateNeighbours.recall`` with its results.

Shape letters: N rows, D feature size, K neighbours, B rows of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.clustering.checks import checked_features
from harness.clustering.coarse import numbers
from harness.clustering.memory import require_memory, search_bytes
from harness.clustering.neighbours import faiss_module, neighbours_of, settled
from harness.errors import SettingsError
from harness.progress import Progress

_SPARE = 16
"""Candidates beyond the K asked for, among which float32 rounding cannot hide one of the K."""


@dataclass(frozen=True)
class ApproximateNeighbours:
    """Rank lists that may miss neighbours.

    ``ranking_NK`` int64 [N, K], in exact order; ``recall``: the share of the true neighbours that they hold, measured
    on ``measured_rows`` rows drawn at random; ``probes`` of ``cells`` cells were searched for every row.
    """

    ranking_NK: Tensor
    recall: float
    measured_rows: int
    cells: int
    probes: int
    approximate: bool = True


def approximate_neighbours(
    features_ND: Tensor,
    k: int,
    *,
    cells: int | None = None,
    probes: int = 16,
    measured_rows: int = 1000,
    generator: torch.Generator | None = None,
    block: int = 8192,
    progress: Progress | None = None,
) -> ApproximateNeighbours:
    """The k nearest rows of every row, as far as an inverted file finds them; hand them on as ``ranking_NK``.

    ``features_ND`` float [N, D], copied to the CPU; ``cells``: by default √N; ``probes``: cells searched for a
    row, more for more recall; ``measured_rows`` are drawn by ``generator`` (default: seed 0). A row of which fewer than
    k neighbours are found is searched exactly.

    Raises ``SettingsError`` for numbers below 1, or when faiss is missing or memory does not suffice.
    """
    if min(k, probes, measured_rows, block, cells or 1) < 1:
        raise SettingsError("k, cells, probes, measured_rows and block of an approximate search must be at least 1.")
    faiss = faiss_module()
    features = checked_features(features_ND).cpu()
    total, size = features.shape
    require_memory(search_bytes(total, size, k) + 4 * total * size, "The approximate search", features.shape)
    k = min(k, total)
    cells = min(cells or max(1, math.isqrt(total)), max(1, total))
    probes = min(probes, cells)
    found_NK = torch.empty(total, k, dtype=torch.int64)
    if total:
        array = numbers(features.float())
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(size), size, cells)
        # Fewer rows per cell than faiss likes are no reason to write to the terminal.
        index.cp.min_points_per_centroid = 1
        index.train(array)
        index.add(array)
        index.nprobe = probes
        for start in range(0, total, block):
            rows_B = torch.arange(start, min(start + block, total))
            candidates_BC = torch.from_numpy(index.search(array[start : start + block], min(k + _SPARE, total))[1])
            found_NK[rows_B] = settled(features, rows_B, candidates_BC, k)
            few_B = rows_B[(candidates_BC >= 0).sum(dim=1) < k]
            found_NK[few_B] = neighbours_of(features, few_B, k)
            if progress is not None:
                progress(int(rows_B[-1]) + 1, total)
    recall, measured = _recall(features, found_NK, measured_rows, generator or torch.Generator().manual_seed(0))
    return ApproximateNeighbours(found_NK.to(features_ND.device), recall, measured, cells, probes)


def _recall(features: Tensor, found_NK: Tensor, rows: int, generator: torch.Generator) -> tuple[float, int]:
    total, k = found_NK.shape
    chosen_B = torch.randperm(total, generator=generator)[:rows]
    if not chosen_B.numel():
        return 1.0, 0
    exact_BK = neighbours_of(features, chosen_B, k)
    hits_BK = (found_NK[chosen_B, :, None] == exact_BK[:, None, :]).any(dim=2)
    return float(hits_BK.double().mean()), chosen_B.numel()
