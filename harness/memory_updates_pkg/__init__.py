"""How cluster memories change after a step: pure functions from a bank to the next bank.

Shape letters: K rows of the bank, B queries of the batch, D feature size. Banks and queries have unit rows;
labels are int64, −1 = write nothing. Nothing is modified in place and no gradient flows, except in
``ReleasedSimilarity``, whose purpose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.errors import HarnessError


@torch.no_grad()
def momentum_update(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """Every query in batch order: its cluster's row ← unit( momentum · row + (1 − momentum) · query ).

    The order matters: with a small momentum the last query of a cluster dominates. Returns the new bank [K,
    D]. Source: Cluster-Contrast's mean mode (baseline.md 4.3). Raises ``HarnessError`` for inputs that do not
    fit together.
    """
    queries, labels = _written(bank_KD, queries_BD, labels_B)
    bank = bank_KD.clone()
    turns = _turns(labels)
    # Rows of different clusters do not meet, so the first queries of all clusters go together, then the second ones.
    for turn in range(int(turns.max()) + 1 if turns.numel() else 0):
        chosen = turns == turn
        rows = labels[chosen]
        bank[rows] = _moved(bank[rows], queries[chosen], momentum)
    return bank


@torch.no_grad()
def hard_update(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """One momentum step per cluster, with its query least similar to the row (ties: the first in the batch).

    Returns the new bank [K, D]. Source: Cluster-Contrast's hard mode (baseline.md 4.3).
    Raises ``HarnessError`` for inputs that do not fit together.
    """
    queries, labels = _written(bank_KD, queries_BD, labels_B)
    rows, hardest = _hardest(bank_KD, queries, labels)
    bank = bank_KD.clone()
    bank[rows] = _moved(bank[rows], queries[hardest], momentum)
    return bank


@torch.no_grad()
def hybrid_update(
    centroid_bank_KD: Tensor, hard_bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float
) -> tuple[Tensor, Tensor]:
    """One momentum step per cluster: the centroid row with the mean query, the hard row with the hardest query.

    The hardest is the query least similar to the centroid row as it was before (ties: the first in the
    batch); the mean is not normalised. Returns the new (centroid bank, hard bank). Source: PCLHD (NeurIPS
    2024), released code; pclhd.md 3.5. Raises ``HarnessError`` for inputs that do not fit together.
    """
    queries, labels = _written(centroid_bank_KD, queries_BD, labels_B)
    if hard_bank_KD.shape != centroid_bank_KD.shape:
        raise HarnessError(
            f"A hard bank {tuple(hard_bank_KD.shape)} was given with a centroid bank {tuple(centroid_bank_KD.shape)}; "
            "equal shapes were expected."
        )
    rows, hardest = _hardest(centroid_bank_KD, queries, labels)
    means_KD = cluster_means(queries, labels, centroid_bank_KD.shape[0])
    centroid_bank, hard_bank = centroid_bank_KD.clone(), hard_bank_KD.clone()
    centroid_bank[rows] = _moved(centroid_bank[rows], means_KD[rows], momentum)
    hard_bank[rows] = _moved(hard_bank[rows], queries[hardest], momentum)
    return centroid_bank, hard_bank


@torch.no_grad()
def random_replacement(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, generator: torch.Generator) -> Tensor:
    """Every row whose cluster is in the batch becomes one of the cluster's queries, each with the same chance.

    Returns the new bank [K, D], unit rows. ``generator`` may live on another device than the bank.
    Source: DMIC (dmic.md 3.4). Raises ``HarnessError`` for inputs that do not fit together.
    """
    queries, labels = _written(bank_KD, queries_BD, labels_B)
    shuffled = torch.randperm(labels.numel(), generator=generator, device=generator.device).to(labels.device)
    chosen = shuffled[_turns(labels[shuffled]) == 0]
    bank = bank_KD.clone()
    bank[labels[chosen]] = normalize(queries[chosen], dim=1)
    return bank


BankUpdate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(bank [K, D], queries [B, D], labels [B]) → new bank [K, D]."""


class ReleasedSimilarity:
    """Similarities to a bank that changes during the backward pass, as released cluster memories do.

    The forward pass gives queries · bankᵀ. The backward pass forms the gradient with the bank *as it is at
    that moment* and then writes ``update(bank, queries, labels)`` into it. Where two loss terms share a bank,
    autograd runs the later-created term first, so the earlier one's gradient is formed with a bank that its
    forward pass did not see. For gradients with a constant bank use ``queries @ bank.T`` and apply the update
    after the step.

    ``bank`` is modified in place, once per call whose result takes part in a backward pass and whose queries
    need a gradient. Source: baseline.md 4.3, pclhd.md 3.6.

        similarity = ReleasedSimilarity(bank, update=partial(momentum_update, momentum=0.2))
        loss = cross_entropy(similarity(queries, labels) / temperature, labels)
    """

    def __init__(self, bank: Tensor, *, update: BankUpdate) -> None:
        self.bank = bank
        self.update = update

    def __call__(self, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Similarities [B, K]; ``labels_B`` tells the update which rows to change, −1 = none."""
        return _UpdatedInBackward.apply(queries_BD, labels_B, self.bank, self.update)


class _UpdatedInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries_BD: Tensor, labels_B: Tensor, bank_KD: Tensor, update: BankUpdate) -> Tensor:
        ctx.save_for_backward(queries_BD, labels_B)
        # Not a saved tensor: autograd would refuse it once another term has changed it, and that change is the point.
        ctx.bank, ctx.update = bank_KD, update
        return queries_BD @ bank_KD.to(queries_BD.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BK: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        queries_BD, labels_B = ctx.saved_tensors
        gradient_BD = gradient_BK @ ctx.bank.to(gradient_BK.dtype)
        ctx.bank.copy_(ctx.update(ctx.bank, queries_BD, labels_B))
        return gradient_BD, None, None, None


def _moved(rows_RD: Tensor, towards_RD: Tensor, momentum: float) -> Tensor:
    return normalize(momentum * rows_RD + (1 - momentum) * towards_RD, dim=1)


def _turns(labels_B: Tensor) -> Tensor:
    """For every entry, how many earlier entries have the same label."""
    ordered, order = labels_B.sort(stable=True)
    position = torch.arange(labels_B.numel(), device=labels_B.device)
    turns = torch.empty_like(position)
    turns[order] = position - torch.searchsorted(ordered, ordered)
    return turns


def _hardest(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """The clusters in the batch and, for each, the position of its query least similar to the bank's row."""
    similarity_B = (queries_BD * bank_KD[labels_B]).sum(dim=1)
    by_similarity = similarity_B.sort(stable=True).indices
    hardest = by_similarity[_turns(labels_B[by_similarity]) == 0]
    return labels_B[hardest], hardest


def _written(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Queries, in the bank's dtype, and labels of those that are to be written."""
    if queries_BD.ndim != 2 or queries_BD.shape[1:] != bank_KD.shape[1:] or labels_B.shape != queries_BD.shape[:1]:
        raise HarnessError(
            f"Queries {tuple(queries_BD.shape)} with labels {tuple(labels_B.shape)} were given to a bank "
            f"{tuple(bank_KD.shape)}; [B, D], [B] and [K, D] were expected."
        )
    if labels_B.numel() and int(labels_B.max()) >= bank_KD.shape[0]:
        raise HarnessError(
            f"Label {int(labels_B.max())} was given to a bank of {bank_KD.shape[0]} rows; labels index the rows of the "
            "bank. Build the bank from the labels that the batches are drawn with."
        )
    chosen = labels_B >= 0
    return queries_BD[chosen].to(bank_KD.dtype), labels_B[chosen].long()
