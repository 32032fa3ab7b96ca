"""The steps of the Jaccard distance as tensor operations, for any device; ``jaccard`` says what each one computes.

Work is done on blocks of rows whose arrays hold some four million entries, and only pairs that share a column are
formed. What rows have in common is found by sorting (row, column) keys; sums are taken in an order that is given, or of
integers, so that every run gives the same bits, also under ``torch.use_deterministic_algorithms``. The host waits for
the device a few times per block, and never within one row.

Against the compiled steps: the same entries are stored; ``expanded`` has the same bits; so has ``distance`` of float32
weights that are 0 or at least 2⁻²⁹ (those of unit features are), and else differs by rounding of float64;
``encoding`` differs by the rounding of inner products and exponentials, which moves distances by less than 1e-6 for
features that are no longer than 1.

Shape letters: N images, D feature size, K length of a rank list, H length of half a list, B images of a block, L
longest row of a block, P entries; T entries made of those in a block, S different keys among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.clustering.compressed import CompressedRows
from harness.progress import Progress

_ENTRIES = 1 << 22
"""Entries that an array of one block holds, more only where one row makes more: all its arrays take some 400 MB."""

_WHOLE = 2.0**52
"""The mass of a row as an integer: of float32 weights from 2⁻²⁹ on nothing is lost, and sums are exact in any order."""


def encoding(features_ND: Tensor, ranking_NK: Tensor, *, half: int, progress: Progress | None = None) -> CompressedRows:
    """``jaccard.k_reciprocal_encoding``; products are summed and exponentials taken in float64, rounded once."""
    total, k = ranking_NK.shape
    full_NK = _mutual(ranking_NK, k)
    # Entries that are missing name row N, whose own list has none.
    half_MH = torch.cat([_mutual(ranking_NK, half), ranking_NK.new_full((1, half), total)])
    step = max(1, _ENTRIES // max(1, k * half))
    found_keys, found_values = [ranking_NK.new_empty(0)], [features_ND.new_empty(0)]
    for first in range(0, total, step):
        own_BK = full_NK[first : first + step]
        keys_P = _expanded_sets(own_BK, half_MH)
        rows_P, columns_P = keys_P // total, keys_P % total
        logits_P = 2 * gathered_products(features_ND, rows_P + first, columns_P) - 2
        found_values.append(_softmax_of_rows(logits_P, rows_P, len(own_BK)).to(features_ND.dtype))
        found_keys.append(keys_P + first * total)
        if progress is not None:
            progress(first + len(own_BK), total)
    return _compressed(torch.cat(found_keys), torch.cat(found_values), total=total, width=total)


def expanded(encoding: CompressedRows, averages: CompressedRows, *, progress: Progress | None = None) -> CompressedRows:
    """``jaccard.expanded``: every entry is summed in the dtype of the encoding, in the order of its row of averages."""
    total, width = averages.total, encoding.width
    others_Q, weights_Q = averages.columns_P.long(), averages.values_P.to(encoding.values_P.dtype)
    rows_Q, lengths_N = _row_of_entries(averages), averages.starts_N1.diff()
    most = int(lengths_N.max()) if total else 0
    counts_Q = encoding.starts_N1.diff()[others_Q]
    found_keys, found_values = [others_Q.new_empty(0)], [weights_Q.new_empty(0)]
    for block in _blocks(averages.starts_N1, encoding.starts_N1[others_Q], counts_Q):
        keys_T = (rows_Q[block.entries_T] - block.first) * width + encoding.columns_P[block.places_T]
        values_T = weights_Q[block.entries_T] * encoding.values_P[block.places_T]
        keys_T, order_T = _sorted(keys_T, (block.last - block.first) * width)
        firsts_S = _firsts(keys_T)
        found_values.append(_summed_in_order(values_T[order_T], firsts_S, most))
        found_keys.append(keys_T[firsts_S].long() + block.first * width)
        if progress is not None:
            progress(block.last, total)
    return _compressed(torch.cat(found_keys), torch.cat(found_values), total=total, width=width)


def distance(
    encoding: CompressedRows, *, max_distance: float | None = None, progress: Progress | None = None
) -> CompressedRows:
    """``jaccard.jaccard_distance``: masses are summed as integers; every block keeps the pairs that are near."""
    total, weights_P = encoding.total, encoding.values_P
    # Compared in the precision of the distances, as the radius of DBSCAN is.
    limit = weights_P.new_full((), math.inf if max_distance is None else max_distance)
    rows_P, shares_P = _row_of_entries(encoding), (weights_P.double() * _WHOLE).round().long()
    by_column_P, order_P = encoding.columns_P.sort(stable=True)
    later_rows_P, later_shares_P = rows_P[order_P], shares_P[order_P]
    # In the order of columns, an entry is followed by the same column's entries in later rows.
    following_P = order_P.argsort() + 1
    counts_P = torch.searchsorted(by_column_P, encoding.columns_P, right=True) - following_P
    found_keys, found_distances = [rows_P.new_empty(0)], [weights_P.new_empty(0)]
    for block in _blocks(encoding.starts_N1, following_P, counts_P):
        keys_T = (rows_P[block.entries_T] - block.first) * total + later_rows_P[block.places_T]
        mass_T = torch.minimum(shares_P[block.entries_T], later_shares_P[block.places_T])
        keys_T, order_T = _sorted(keys_T, (block.last - block.first) * total)
        firsts_S = _firsts(keys_T)
        mass_S = _summed(mass_T[order_T], firsts_S).double() / _WHOLE
        distances_S = (1 - mass_S / (2 - mass_S)).clamp_(min=0).to(weights_P.dtype)
        near = ((distances_S < 1) & (distances_S <= limit)).nonzero().flatten()
        found_keys.append(keys_T[firsts_S[near]].long() + block.first * total)
        found_distances.append(distances_S[near])
        if progress is not None:
            progress(block.last, total)
    return _symmetric(torch.cat(found_keys), torch.cat(found_distances), total)


def gathered_products(features_ND: Tensor, rows_P: Tensor, columns_P: Tensor) -> Tensor:
    """<f_i, f_j> of P pairs of rows: products in the dtype of the features, summed in float64; float64 [P]."""
    at_once = max(1, _ENTRIES // max(1, features_ND.shape[1]))
    pairs = zip(rows_P.split(at_once), columns_P.split(at_once), strict=True)
    parts = [features_ND[left].mul_(features_ND[right]).sum(dim=1, dtype=torch.float64) for left, right in pairs]
    return torch.cat(parts)


def _mutual(ranking_NK: Tensor, width: int) -> Tensor:
    """Of each row the rows that are in each other's first ``width`` entries: [N, width], ascending, then N."""
    total = ranking_NK.shape[0]
    near_NW = ranking_NK[:, :width]
    step = max(1, _ENTRIES // max(1, width * width))
    members = [ranking_NK.new_empty(0, width)]
    for rows_B in torch.arange(total, device=ranking_NK.device).split(step):
        near_BW = near_NW[rows_B]
        mutual_BW = (near_NW[near_BW] == rows_B[:, None, None]).any(dim=2)
        members.append(torch.where(mutual_BW, near_BW, total).sort(dim=1).values)
    return torch.cat(members)


def _expanded_sets(own_BK: Tensor, half_MH: Tensor) -> Tensor:
    """The mutual neighbours of each row, and those of each mutual neighbour of which more than 2/3 are among them.

    ``own_BK``: as ``_mutual`` gives them; ``half_MH``: of all rows and of nobody, M = N + 1. Returns ascending keys
    b N + column, int64 [P].
    """
    total, (rows, k) = len(half_MH) - 1, own_BK.shape
    half_BKH = half_MH[own_BK]
    listed_BKH = half_BKH < total
    candidates_BC = half_BKH.flatten(1)
    places_BC = torch.searchsorted(own_BK, candidates_BC).clamp_(max=k - 1)
    shared_BKH = listed_BKH & (own_BK.gather(1, places_BC) == candidates_BC).view_as(half_BKH)
    taken_BK1 = (3 * shared_BKH.sum(dim=2) > 2 * listed_BKH.sum(dim=2))[:, :, None]
    new_BC = torch.where(listed_BKH & ~shared_BKH & taken_BK1, half_BKH, total).flatten(1)
    columns_BC = torch.cat([own_BK, new_BC], dim=1)
    keys_BC = columns_BC + total * torch.arange(rows, device=own_BK.device)[:, None]
    return keys_BC[columns_BC < total].unique()


def _softmax_of_rows(logits_P: Tensor, rows_P: Tensor, rows: int) -> Tensor:
    """Softmax within each row of a block; ``rows_P``: the row of every entry, ascending, below ``rows``."""
    starts_B1 = torch.searchsorted(rows_P, torch.arange(rows + 1, device=rows_P.device))
    longest = torch.arange(int(starts_B1.diff().max()), device=rows_P.device)
    places_BL = starts_B1[:-1, None] + longest
    inside_BL = places_BL < starts_B1[1:, None]
    logits_BL = torch.where(inside_BL, logits_P[places_BL.clamp_(max=len(logits_P) - 1)], -math.inf)
    places_P = torch.arange(len(rows_P), device=rows_P.device) - starts_B1[rows_P]
    return logits_BL.softmax(dim=1)[rows_P, places_P]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Rows ``first`` to ``last`` of a matrix, whose entries are replaced by ranges of places elsewhere.

    ``entries_T``: the entry, ``places_T``: the place, in the order of entries and then of places.
    """

    first: int
    last: int
    entries_T: Tensor
    places_T: Tensor


def _blocks(starts_N1: Tensor, from_P: Tensor, counts_P: Tensor) -> Iterator[_Block]:
    """Blocks of rows in which entry p stands for the ``counts_P[p]`` places from ``from_P[p]`` on."""
    device = starts_N1.device
    ends_P1 = torch.cat([counts_P.new_zeros(1), counts_P.cumsum(0)])
    starts, made = torch.stack([starts_N1, ends_P1[starts_N1]]).cpu()
    offsets_P = from_P - ends_P1[:-1]
    first, total = 0, len(starts) - 1
    while first < total:
        last = int(torch.searchsorted(made, made[first] + _ENTRIES, right=True)) - 1
        last = max(last, first + 1)
        (own, end), (before, after) = starts[[first, last]].tolist(), made[[first, last]].tolist()
        entries_T = torch.arange(own, end, device=device)
        entries_T = entries_T.repeat_interleave(counts_P[own:end], output_size=after - before)
        yield _Block(first, last, entries_T, torch.arange(before, after, device=device) + offsets_P[entries_T])
        first = last


def _sorted(keys_T: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Keys from 0 to below ``limit`` in ascending order, equal ones in the given order, and where each was."""
    # Half the bytes are sorted in less than half the time.
    keys_T = keys_T.int() if limit <= torch.iinfo(torch.int32).max else keys_T
    return keys_T.sort(stable=True)


def _firsts(keys_T: Tensor) -> Tensor:
    """Where sorted keys change: the first place of every different one, int64 [S]."""
    new_T = torch.ones_like(keys_T, dtype=torch.bool)
    new_T[1:] = keys_T[1:] != keys_T[:-1]
    return new_T.nonzero().flatten()


def _summed(integers_T: Tensor, firsts_S: Tensor) -> Tensor:
    """Sums of the runs that begin at ``firsts_S``."""
    # The running sum may wrap around; its differences, being small enough, are right nevertheless.
    sums_T1 = torch.cat([integers_T.new_zeros(1), integers_T.cumsum(0)])
    return torch.cat([sums_T1[firsts_S], sums_T1[-1:]]).diff()


def _summed_in_order(values_T: Tensor, firsts_S: Tensor, most: int) -> Tensor:
    """Sums of the runs, of at most ``most`` values each, that begin at ``firsts_S``: from left to right."""
    lengths_S = torch.cat([firsts_S, firsts_S.new_full((1,), len(values_T))]).diff()
    sums_S = values_T.new_zeros(len(firsts_S))
    for place in range(most):
        values_S = values_T[(firsts_S + place).clamp_(max=len(values_T) - 1)]
        sums_S += torch.where(place < lengths_S, values_S, 0)
    return sums_S


def _row_of_entries(rows: CompressedRows) -> Tensor:
    """The row of every entry, int64 [P]."""
    every_N = torch.arange(rows.total, device=rows.starts_N1.device)
    return every_N.repeat_interleave(rows.starts_N1.diff(), output_size=rows.columns_P.numel())


def _symmetric(keys_P: Tensor, distances_P: Tensor, total: int) -> CompressedRows:
    """The matrix whose part above the diagonal is given, keys i N + j, with zeros on the diagonal."""
    rows_P, columns_P = keys_P // total, keys_P % total
    diagonal_N = torch.arange(total, device=keys_P.device) * (total + 1)
    keys_P, order_P = torch.cat([keys_P, columns_P * total + rows_P, diagonal_N]).sort()
    values_P = torch.cat([distances_P, distances_P, distances_P.new_zeros(total)])[order_P]
    return _compressed(keys_P, values_P, total=total, width=total)


def _compressed(keys_P: Tensor, values_P: Tensor, *, total: int, width: int) -> CompressedRows:
    """Rows of ascending keys i width + j."""
    edges_N1 = torch.arange(total + 1, device=keys_P.device) * width
    return CompressedRows(torch.searchsorted(keys_P, edges_N1), (keys_P % width).int(), values_P, width)
