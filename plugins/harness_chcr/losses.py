"""CHCR's modality contrastive loss (chcr.md 3.5).

Stated by a source: it sets cross-modality constraints on cluster centroids and promotes positive pairs across
modalities. Reconstructed: everything else, behind the option ``form``. In each form only queries whose cluster has a
counterpart in the other modality have a term, so single-modality labels give none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import OUTLIER, Batch, Embeddings, EpochContext, Loss, Memory
from harness.contrast import contrast
from harness_chcr.options import ModalityContrastOptions

DIRECTIONS = (("visible", "infrared"), ("infrared", "visible"))


class ModalityContrastLoss(Loss):
    """One term ``modality-contrast``: the mean over all queries that have a counterpart. Left out if none has.

    Needs visible and infrared clusters that are linked, directly or through the joint partition, and banks of both.
    """

    options: ModalityContrastOptions

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        queries_BD = embeddings.unit()
        form = {"opposite": self._opposite, "proxy": self._proxy, "centroid": self._centroid}[self.options.form]
        value = form(batch, queries_BD, memory)
        return {} if value is None else {"modality-contrast": self.options.weight * value}

    def _opposite(self, batch: Batch, queries_BD: Tensor, memory: Memory) -> Tensor | None:
        values, counts = [], []
        for source, target in DIRECTIONS:
            labels = batch.linked(source, target)
            if labels is None or target not in memory.names:
                continue
            value = contrast(memory.bank(target), queries_BD, labels, temperature=self.options.temperature)
            if value is not None:
                values.append(value)
                counts.append((labels >= 0).sum())
        return _weighted_mean(values, counts)

    def _proxy(self, batch: Batch, queries_BD: Tensor, memory: Memory) -> Tensor | None:
        values, counts = [], []
        for source, target in DIRECTIONS:
            linked = batch.linked(source, target)
            if linked is None or not {source, target} <= set(memory.names):
                continue
            chosen = linked >= 0
            if bool(chosen.any()):
                labels = {source: batch.labels[source][chosen], target: linked[chosen]}
                values.append(self._proxy_mean(queries_BD[chosen], labels, memory))
                counts.append(chosen.sum())
        return _weighted_mean(values, counts)

    def _proxy_mean(self, queries_BD: Tensor, labels: dict[str, Tensor], memory: Memory) -> Tensor:
        banks = {name: memory.bank(name) for name in labels}
        logits = torch.cat([banks[name].similarities(queries_BD, labels[name]) for name in labels], dim=1)
        positive = torch.cat([banks[name].cluster[None, :] == labels[name][:, None] for name in labels], dim=1)
        log_share = (logits.float() / self.options.temperature).log_softmax(dim=1)
        return -(torch.where(positive, log_share, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()

    def _centroid(self, batch: Batch, queries_BD: Tensor, memory: Memory) -> Tensor | None:
        linked = batch.linked("visible", "infrared")
        if linked is None:
            return None
        visible_KD, infrared_KD = batch_centroids(queries_BD, linked, batch.labels["infrared"])
        if not len(visible_KD):
            return None
        own = torch.arange(len(visible_KD), device=queries_BD.device)
        to_infrared = visible_KD @ infrared_KD.detach().T / self.options.temperature
        to_visible = infrared_KD @ visible_KD.detach().T / self.options.temperature
        return (cross_entropy(to_infrared, own) + cross_entropy(to_visible, own)) / 2


def batch_centroids(queries_BD: Tensor, visible_B: Tensor, infrared_B: Tensor) -> tuple[Tensor, Tensor]:
    """Unit means [K, D] of the visible and of the infrared queries of the K clusters that have both in the batch.

    ``visible_B``, ``infrared_B``: clusters int64 [B] in one numbering, −1 = not of that modality or in no cluster.
    """
    clusters = torch.unique(visible_B[visible_B >= 0])
    clusters = clusters[torch.isin(clusters, infrared_B)]
    means = []
    for labels_B in (visible_B, infrared_B):
        slot = torch.searchsorted(clusters, labels_B)
        position = torch.where(torch.isin(labels_B, clusters), slot, OUTLIER)
        means.append(normalize(cluster_means(queries_BD, position, len(clusters)), dim=1))
    return means[0], means[1]


def _weighted_mean(values: list[Tensor], counts: list[Tensor]) -> Tensor | None:
    if not values:
        return None
    weights = torch.stack(counts).float()
    return (torch.stack(values) * weights).sum() / weights.sum()
