"""Contrast of queries with a bank: the softmax loss that most methods build on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.contracts import Bank


def contrast(bank: Bank, queries_BD: Tensor, labels_B: Tensor, *, temperature: float) -> Tensor | None:
    """Mean of −log( Σ_own exp(q·v/τ) / Σ_all exp(q·v/τ) ) over the labelled queries.

    ``queries_BD`` unit rows, float32 [B, D]; ``labels_B`` int64 [B], cluster ids of the bank's partition, −1 = leave
    out. With one prototype per cluster this is the cross-entropy of baseline cluster contrast (Cluster-Contrast;
    ADCA). With several, the prototypes of the own cluster are positives in a sum. Rows with cluster −1 are negatives
    of all.

    Returns a scalar, or None when no query has a label.

    >>> bank = Bank.of_centroids(torch.eye(2))
    >>> queries_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(contrast(bank, queries_BD, torch.tensor([0, -1]), temperature=0.5)), 4)
    0.1269
    """
    chosen = labels_B >= 0
    if not bool(chosen.any()):
        return None
    labels = labels_B[chosen]
    logits = bank.similarities(queries_BD[chosen], labels).float() / temperature
    if bank.single:
        return cross_entropy(logits, labels)
    own = bank.cluster[None, :] == labels[:, None]
    positive = torch.where(own, logits, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - positive).mean()
