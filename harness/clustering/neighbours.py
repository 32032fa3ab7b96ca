"""Exact nearest neighbours, the same on every backend.

A backend only proposes candidates, by products that carry rounding errors; how large these can be is bounded
(``coarse``), so that no row which may be among the nearest is missed. The order is then settled by distances recomputed
in float64 from coordinate differences, so that any backend, device, precision and number of threads gives one answer.

Shape letters: N rows, D feature size, B rows of a block, C candidates per row, K neighbours.
"""

from __future__ import annotations

import importlib
import itertools
import math
import time
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness.clustering import neighbour_kernels as kernels
from harness.clustering.chain import chain
from harness.clustering.checks import checked_features
from harness.clustering.coarse import CoarseRows, Grade, main_directions, numbers, possible_grades, summation_error
from harness.clustering.memory import require_memory, search_bytes
from harness.clustering.threads import over_rows
from harness.errors import SettingsError
from harness.progress import Progress

Backend = Literal["auto", "compiled", "faiss", "torch"]

_SPARE = 16
"""Candidates that faiss and torch propose beyond the K asked for: they show whether the cut at K is beyond doubt."""

_MOST_TIED = 512
"""At least so many rows of indistinguishable distance are compared exactly; beyond, lower indices go first."""

_SETTLED_ELEMENTS = 1 << 21
"""Coordinates gathered at once when distances are recomputed on an accelerator."""

_FEW_ROWS = 64
"""Up to so many rows are compared exactly with all others, without a product of lower precision first."""

_CELLS = 1 << 20
"""Distances that are held at once while chosen rows are searched."""

_TRIAL_ROWS, _TRIAL_COLUMNS = 64, 4096
"""Rows on which a grade shows how many candidates its error lets through, and rows they meet at once."""

_TIGHTENED = (0, 1, 3, 7)
"""Thresholds are brought up to date when blocks so far apart have met; later on, whenever a list is full."""

_FEWEST_PLACES, _MOST_PLACES = 64, 256
"""Places of a candidate list while the search runs (or 4k, if that is more)."""


def nearest_neighbours(
    features_ND: Tensor,
    k: int,
    *,
    backend: Backend = "auto",
    grade: Grade | None = None,
    block: int = 1024,
    progress: Progress | None = None,
) -> Tensor:
    """The k nearest rows of every row by squared L2 distance, the row itself included.

    ``features_ND`` float [N, D], used as given (not normalised), on any device. ``block``: rows whose distances to
    others are held at once. ``progress`` is told the rows done.

    Returns int64 [N, min(k, N)] on the device of the features: nearest first; among equal distances the lower index
    goes first, also at the cut. (So a row with k duplicates of lower index is not in its own list.) Where more than
    max(512, 8k) rows lie within float64 rounding of the k-th distance, they count as equal.

    ``backend``, all with the same result: "compiled" (CPU; every product serves both of its rows), "torch" (any
    device), "faiss" (features are copied to the CPU), or "auto": compiled for features on the CPU, else torch.
    ``grade``: the precision of the first pass of compiled and torch, by default the fastest here whose error leaves
    few candidates.

    Raises ``TrainingError`` for features that are not finite, ``SettingsError`` for k < 1, a missing backend, or a
    search that does not fit in memory.
    """
    features = checked_features(features_ND)
    if k < 1 or block < 1:
        raise SettingsError(f"k = {k} neighbours in blocks of {block} rows were asked for; both must be at least 1.")
    chosen = _chosen(backend, features.device)
    total = features.shape[0]
    k = min(k, total)
    if features.numel() == 0:
        # Without coordinates all rows are equal: the lowest indices are nearest.
        return torch.arange(k, device=features.device).expand(total, k).clone()
    if features.device.type == "cpu":
        require_memory(search_bytes(total, features.shape[1], k), "The neighbour search", features.shape)
    if chosen == "faiss":
        return _by_faiss(features, k, block=block, progress=progress)
    coarse, places = _coarse_rows(features, k, grade)
    search = _by_compiled if chosen == "compiled" else _by_torch
    return search(features, k, coarse=coarse, places=places, block=block, progress=progress)


def _by_compiled(
    features: Tensor, k: int, *, coarse: CoarseRows, places: int, block: int, progress: Progress | None
) -> Tensor:
    """Upper triangle of blocks; each block's products are offered to its rows and to its columns."""
    total = features.shape[0]
    coarse.reorder(_order_by_cells(coarse))
    unit, squares, errors = numbers(coarse.unit_N), numbers(coarse.squares_N), numbers(coarse.errors_N)
    lows = squares - errors
    lists = (
        np.empty((total, places), dtype=np.float32),
        np.empty((total, places), dtype=np.int32),
        np.zeros(total, dtype=np.int32),
        np.full(total, np.inf, dtype=np.float32),
        np.full(total, np.inf, dtype=np.float32),
    )
    starts = range(0, total, block)
    for done, (row, column) in enumerate(_by_distance(starts), start=1):
        left, right = (coarse.panel(start, min(start + block, total)) for start in (row, column))
        products = numbers(coarse.products(left, right))
        around = (products, row, column, unit, lows, lists, errors, k)
        if row == column and products.shape[0] >= k:
            over_rows(kernels.first_limits, products.shape[0], products, row, unit, lows, lists, errors, k)
        over_rows(kernels.offer_to_rows, products.shape[0], *around)
        if column > row:
            over_rows(kernels.offer_to_columns, products.shape[1], *around)
        if column == starts[-1] and (column - row) // block in _TIGHTENED:
            over_rows(kernels.tighten, total, lists, errors, k)
        if progress is not None:
            progress(total * done // (len(starts) * (len(starts) + 1) // 2), total)
    nearest = np.empty((total, k), dtype=np.int64)
    crowded = np.zeros(total, dtype=np.bool_)
    starts_N = places * np.arange(total)
    chain_N, order_N = chain(starts_N, starts_N + lists[2], lists[1].ravel()), numbers(coarse.order_N)
    bounds = (squares, errors, coarse.scale)
    over_rows(kernels.settle, total, chain_N, numbers(features), order_N, lists, *bounds, nearest, crowded)
    found = torch.from_numpy(nearest)
    crowded_B = torch.from_numpy(np.flatnonzero(crowded))
    found[crowded_B] = neighbours_of(features, crowded_B, k)
    return found


def _by_distance(starts: range) -> Iterator[tuple[int, int]]:
    """Every pair of blocks once: a block with itself at first, then with the next one, and so on."""
    for apart in range(len(starts)):
        yield from zip(starts, starts[apart:], strict=False)


def _order_by_cells(coarse: CoarseRows) -> Tensor:
    """All rows [N], those nearest to the same one of √N pivots together.

    Most near rows are then met first, within a row's own block, and few others are taken into its list.
    """
    total = coarse.order_N.numel()
    pivots_C = torch.linspace(0, total - 1, math.isqrt(total)).long()
    pivots_CP = torch.cat([coarse.panel(pivot, pivot + 1) for pivot in pivots_C.tolist()])
    cells = []
    for start in range(0, total, _TRIAL_COLUMNS):
        own = slice(start, min(start + _TRIAL_COLUMNS, total))
        products_BC = coarse.products(coarse.panel(own.start, own.stop), pivots_CP)
        cells.append(coarse.lowest(products_BC, own, pivots_C).argmin(dim=1))
    return torch.cat(cells).argsort(stable=True)


def _by_torch(
    features: Tensor, k: int, *, coarse: CoarseRows, places: int, block: int, progress: Progress | None
) -> Tensor:
    total, count = features.shape[0], min(places, features.shape[0])
    found = torch.empty(total, k, dtype=torch.int64, device=features.device)
    everything, crowded = coarse.panel(0, total), []
    for start in range(0, total, block):
        own = slice(start, min(start + block, total))
        rows_B = torch.arange(own.start, own.stop, device=features.device)
        values_BN = coarse.lowest(coarse.products(everything[own], everything), own, slice(None))
        values_BC, candidates_BC = values_BN.topk(count, dim=1, largest=False, sorted=True)
        found[rows_B] = settled(features, rows_B, candidates_BC, k)
        if count < total:
            highest_BK = values_BC[:, :k] + 2 * coarse.errors_N[candidates_BC[:, :k]]
            limit_B = highest_BK.amax(dim=1) + 2 * coarse.errors_N[own]
            crowded.append(rows_B[values_BC[:, -1] <= limit_B])
        if progress is not None:
            progress(min(start + block, total), total)
    if crowded:
        crowded_B = torch.cat(crowded)
        found[crowded_B] = neighbours_of(features, crowded_B, k)
    return found


def _by_faiss(features: Tensor, k: int, *, block: int, progress: Progress | None) -> Tensor:
    faiss = faiss_module()
    total, size = features.shape
    # faiss computes |x|² + |y|² − 2xy in float32: three roundings beside the product's and the norms' own.
    norms_N = features.square().sum(dim=1, dtype=torch.float64)
    error_N = (2 * summation_error(size) + 2.0**-20) * (norms_N + norms_N.max())
    array = numbers(features.float())
    index = faiss.IndexFlatL2(size)
    index.add(array)
    found = torch.empty(total, k, dtype=torch.int64, device=features.device)
    count, crowded = min(k + _SPARE, total), []
    for start in range(0, total, block):
        rows_B = torch.arange(start, min(start + block, total), device=features.device)
        distances, candidates = index.search(array[start : start + block], count)
        found[rows_B] = settled(features, rows_B, torch.from_numpy(candidates).to(features.device), k)
        if count < total:
            gap_B = torch.from_numpy(distances[:, -1] - distances[:, k - 1]).to(features.device)
            crowded.append(rows_B[~(gap_B > 2 * error_N[rows_B])])
        if progress is not None:
            progress(min(start + block, total), total)
    if crowded:
        crowded_B = torch.cat(crowded)
        found[crowded_B] = neighbours_of(features, crowded_B, k)
    return found


def neighbours_of(features_ND: Tensor, rows_B: Tensor, k: int) -> Tensor:
    """The exact k nearest rows of chosen rows [B, k]: what ``nearest_neighbours`` gives, for some rows only.

    ``features_ND`` float32 or float64 [N, D], finite, N ≥ k; ``rows_B`` int64, on the same device.
    """
    found_BK = torch.empty(rows_B.numel(), k, dtype=torch.int64, device=features_ND.device)
    if not rows_B.numel():
        return found_BK
    total = features_ND.shape[0]
    block = max(1, _CELLS // total)
    if features_ND.device.type == "cpu" and rows_B.numel() <= _FEW_ROWS:
        everything_N = torch.arange(total)
        parts = rows_B.split(block)
        return torch.cat([settled(features_ND, part, everything_N.expand(part.numel(), -1), k) for part in parts])
    rows = _ScaledRows(features_ND)
    reduced = features_ND.dtype == torch.float64 or torch.get_float32_matmul_precision() != "highest"
    for start in range(0, rows_B.numel(), block):
        part_b = rows_B[start : start + block]
        for precision in (torch.float64,) if reduced else (torch.float32, torch.float64):
            candidates_bC, complete = rows.undecided(part_b, k, precision)
            if complete:
                break
        found_BK[start : start + block] = settled(features_ND, part_b, candidates_bC, k)
    return found_BK


class _ScaledRows:
    """The rows, times a power of two that keeps squares in range, and their squared norms."""

    def __init__(self, features_ND: Tensor) -> None:
        self.features_ND = features_ND
        self.scale = 2.0 ** min(-int(np.frexp(float(features_ND.abs().max()))[1]), 120)
        self.step = max(1, _SETTLED_ELEMENTS // max(1, features_ND.shape[1]))
        parts = features_ND.split(self.step)
        self.norms_N = torch.cat([(part.double() * self.scale).square().sum(dim=1) for part in parts])

    def undecided(self, rows_B: Tensor, k: int, precision: torch.dtype) -> tuple[Tensor, bool]:
        """Candidates [B, C] by products of a precision, and whether they hold all that may be among the k nearest.

        Rows surely nearer than the k-th come first, then rows within rounding of it, each by index; the list is cut at
        C = max(512, 8k).
        """
        distances_BN = self._distances(rows_B, precision)
        unit = 2.0**-24 if precision == torch.float32 else 2.0**-53
        error = 2 * summation_error(self.features_ND.shape[1], unit=unit) + 8 * unit
        margin_B1 = 2 * error * (self.norms_N[rows_B, None] + self.norms_N.max())
        kth_B1 = distances_BN.kthvalue(k, dim=1, keepdim=True).values
        possible_BN = distances_BN <= kth_B1 + margin_B1
        sure_BN = distances_BN < kth_B1 - margin_B1
        total, wanted = distances_BN.shape[1], int(possible_BN.sum(dim=1).max())
        columns_N = torch.arange(total, device=rows_B.device)
        keys_BN = columns_N - total * sure_BN.long() + total * (~possible_BN).long()
        count = min(max(k, wanted), max(_MOST_TIED, 8 * k))
        return keys_BN.topk(count, dim=1, largest=False).values % total, count >= wanted

    def _distances(self, rows_B: Tensor, precision: torch.dtype) -> Tensor:
        own_BD = self.features_ND[rows_B].to(precision) * self.scale
        parts = self.features_ND.split(self.step)
        products_BN = torch.cat([own_BD @ (part.to(precision) * self.scale).T for part in parts], dim=1)
        return self.norms_N + self.norms_N[rows_B, None] - 2 * products_BN.double()


def settled(features_ND: Tensor, rows_B: Tensor, candidates_BC: Tensor, k: int) -> Tensor:
    """The k nearest of the candidates [B, k], by exact distance and then by index."""
    if features_ND.device.type != "cpu":
        return _settled_by_torch(features_ND, rows_B, candidates_BC, k)
    nearest = np.empty((rows_B.numel(), k), dtype=np.int64)
    over_rows(kernels.settle_listed, rows_B.numel(), *map(numbers, (features_ND, rows_B, candidates_BC)), nearest)
    return torch.from_numpy(nearest)


def _settled_by_torch(features_ND: Tensor, rows_B: Tensor, candidates_BC: Tensor, k: int) -> Tensor:
    candidates_BC = candidates_BC.sort(dim=1).values
    rows_at_once = max(1, _SETTLED_ELEMENTS // max(1, candidates_BC.shape[1] * features_ND.shape[1]))
    parts = []
    for rows_b, candidates_bC in zip(rows_B.split(rows_at_once), candidates_BC.split(rows_at_once), strict=True):
        differences_bCD = features_ND[candidates_bC].double().sub_(features_ND[rows_b, None])
        order_bC = differences_bCD.square_().sum(dim=2).sort(dim=1, stable=True).indices
        parts.append(candidates_bC.gather(1, order_bC[:, :k]))
    return torch.cat(parts)


def _coarse_rows(features: Tensor, k: int, grade: Grade | None) -> tuple[CoarseRows, int]:
    """The rows in the grade asked for, or in the fastest one that is precise enough, and places for candidates.

    A candidate list has at least 4k places, and twice as many as 19 of 20 rows need in the end.
    """
    possible = possible_grades(features)
    if grade is not None and grade not in possible:
        raise SettingsError(f"Grade {grade!r} was asked for; exact here: {', '.join(possible)}.")
    directions = main_directions(features)
    grades = (grade,) if grade is not None else _fastest_first(features.device, possible)
    for name, chosen in itertools.product(grades, (None,) if directions is None else (directions, None)):
        coarse = CoarseRows(features, name, chosen)
        needed = 2 * _candidates(coarse, features.shape[0], k)
        if needed <= max(_MOST_PLACES, 4 * k):
            break
    return coarse, min(max(needed, 4 * k, _FEWEST_PLACES), max(_MOST_PLACES, 4 * k))


def _candidates(coarse: CoarseRows, total: int, k: int) -> int:
    """How many rows may be among the k nearest of a row, as far as the errors tell: enough for 19 of 20 rows tried."""
    first = (total - min(total, _TRIAL_ROWS)) // 2
    rows = slice(first, first + _TRIAL_ROWS)
    left_BD = coarse.panel(first, min(first + _TRIAL_ROWS, total))
    edges = [*range(0, total, _TRIAL_COLUMNS), total]
    panels = (coarse.panel(start, end) for start, end in itertools.pairwise(edges))
    products_BN = torch.cat([coarse.products(left_BD, panel_JD) for panel_JD in panels], dim=1)
    values_BN = coarse.lowest(products_BN, rows, slice(None))
    limit_B = (values_BN + 2 * coarse.errors_N).kthvalue(k, dim=1).values + 2 * coarse.errors_N[rows]
    counts_B = (values_BN <= limit_B[:, None]).sum(dim=1)
    return int(counts_B.sort().values[math.ceil(0.95 * counts_B.numel()) - 1])


@lru_cache
def _fastest_first(device: torch.device, grades: tuple[Grade, ...]) -> tuple[Grade, ...]:
    """The grades by the time that a product takes here; float32 and what is slower than it may as well be left out."""
    rows_ND = torch.linspace(-1, 1, 512 * 512, device=device).reshape(512, 512)
    seconds = {}
    for grade in grades:
        coarse = CoarseRows(rows_ND, grade)
        panel = coarse.panel(0, 512)
        seconds[grade] = min(_seconds(coarse, panel) for _ in range(3))
    return tuple(grade for grade in sorted(grades, key=seconds.__getitem__) if seconds[grade] <= seconds["float32"])


def _seconds(coarse: CoarseRows, panel: Tensor) -> float:
    start = time.perf_counter()
    coarse.products(panel, panel)[0, 0].item()  # waits for an accelerator
    return time.perf_counter() - start


def _chosen(backend: Backend, device: torch.device) -> Backend:
    if backend not in ("auto", "compiled", "faiss", "torch"):
        raise SettingsError(f"Neighbour backend {backend!r} was asked for; known: auto, compiled, faiss, torch.")
    if backend == "auto":
        return "compiled" if device.type == "cpu" else "torch"
    if backend == "compiled" and device.type != "cpu":
        raise SettingsError(f'Neighbour backend "compiled" was asked for features on {device}; use "torch" there.')
    return backend


def faiss_module() -> ModuleType:
    """faiss, with as many threads as torch; ``SettingsError`` if it cannot be imported."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise SettingsError(
            'Neighbour backend "faiss" was asked for, but faiss cannot be imported '
            f'({error}). Install faiss, or use backend "auto", which gives the same neighbours.'
        ) from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
