"""Reference rows: what hidden identities would give. Probes of the harness, not methods; marked in every table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.contracts import OUTLIER, PseudoLabels, TrainIndex


def supervised_labels(train: TrainIndex, identity: np.ndarray) -> PseudoLabels:
    """The true identities as one joint partition. ``identity`` int64 [N]."""
    _, ids = np.unique(identity, return_inverse=True)
    return PseudoLabels(train, {"joint": torch.as_tensor(ids, dtype=torch.int64, device=train.modality.device)})


def oracle_links(labels: PseudoLabels, identity: np.ndarray) -> PseudoLabels:
    """Link visible and infrared clusters whose majority identities agree (the largest such cluster is linked)."""
    ids = torch.as_tensor(identity, dtype=torch.int64, device=labels.train.modality.device)
    owner = {name: _majority(labels[name].labels, ids, labels[name].num_clusters) for name in ("visible", "infrared")}
    sizes = {name: labels[name].sizes for name in ("visible", "infrared")}
    links = {
        (source, target): _match(owner[source], owner[target], sizes[target])
        for source, target in (("visible", "infrared"), ("infrared", "visible"))
    }
    return labels.replace(links=links)


def _majority(labels: Tensor, ids: Tensor, clusters: int) -> Tensor:
    votes = torch.zeros(clusters, int(ids.max()) + 1, dtype=torch.int64, device=ids.device)
    chosen = labels >= 0
    votes.index_put_((labels[chosen], ids[chosen]), torch.ones_like(ids[chosen]), accumulate=True)
    return votes.argmax(1) if clusters else votes.new_zeros(0)


def _match(owner: Tensor, other_owner: Tensor, other_sizes: Tensor) -> Tensor:
    if not owner.numel() or not other_owner.numel():
        return torch.full_like(owner, OUTLIER)
    same = owner[:, None] == other_owner[None, :]
    best = torch.where(same, other_sizes[None, :], -1).max(1)
    return torch.where(best.values >= 0, best.indices, OUTLIER)
