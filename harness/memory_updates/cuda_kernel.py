"""The momentum update on an accelerator, as one kernel launch. Imported only for tensors that lie on one.

Shape letters: K clusters, J centres of a cluster, B queries of a batch, D feature size.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor


def follow_queries(bank_KJD: Tensor, queries_BD: Tensor, labels_B: Tensor, momentum: float) -> None:
    """``harness.memory_updates.multi_centre_update_``, of contiguous tensors; nothing waits for the device."""
    total, size = queries_BD.shape
    centres = bank_KJD.shape[1]
    blocks = triton.next_power_of_2(centres), triton.next_power_of_2(size)
    _follow[(total,)](bank_KJD, queries_BD, labels_B, total, centres, size, momentum, *blocks)


@triton.jit
def _follow(
    bank: Any,
    queries: Any,
    labels: Any,
    total: Any,
    centres: Any,
    size: Any,
    momentum: Any,
    CENTRES: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    """One program per query; that of a cluster's first query walks all of them, the others have nothing to do."""
    first = tl.program_id(0)
    label = tl.load(labels + first)
    earlier = 0
    for b in range(first):
        earlier += (tl.load(labels + b) == label).to(tl.int32)
    if (label >= 0) & (earlier == 0):
        centre = tl.arange(0, CENTRES)
        column = tl.arange(0, SIZE)
        places = bank + (label * centres + centre[:, None]) * size + column[None, :]
        inside = (centre[:, None] < centres) & (column[None, :] < size)
        rows = tl.load(places, mask=inside, other=0.0)
        for b in range(first, total):
            if tl.load(labels + b) == label:
                query = tl.load(queries + b * size + column, mask=column < size, other=0.0)
                likeness = tl.where(centre < centres, tl.sum(rows * query[None, :], axis=1), float("-inf"))
                moved = momentum * rows + (1 - momentum) * query[None, :]
                length = tl.sqrt(tl.sum(moved * moved, axis=1))
                moved = moved / tl.maximum(length, 1e-12)[:, None]
                rows = tl.where((centre == tl.argmax(likeness, axis=0))[:, None], moved, rows)
        tl.store(places, rows, mask=inside)
