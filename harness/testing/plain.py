"""The plainest part of each role: what a part under test works beside."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import Bank, Batch, Clusterer, Embeddings, EpochContext, Loss, Memory, Partition, PseudoLabels
from harness.contrast import contrast


class PlainClusterer(Clusterer):
    """Clusters by row, whatever the features are: every fourth image belongs together, in each modality."""

    CLUSTERS = 4

    def cluster(self, epoch: EpochContext) -> PseudoLabels:
        train = epoch.train
        labels = torch.arange(len(train), device=train.modality.device) % self.CLUSTERS
        visible, infrared = torch.where(train.visible, labels, -1), torch.where(train.infrared, labels, -1)
        same = torch.arange(self.CLUSTERS, device=labels.device)
        links = {("visible", "infrared"): same, ("infrared", "visible"): same}
        return PseudoLabels(train, {"visible": visible, "infrared": infrared}, links)


class PlainMemory(Memory):
    """The mean of every cluster; an update puts the last query in its place."""

    changing = ("_banks",)

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        self._banks = {
            (name, embedding): _means(epoch.features(embedding=embedding), labels[name])
            for name in labels.available
            for embedding in self.setup.embedding_dims
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self._banks))

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        return Bank.of_centroids(self._banks[name, embedding])

    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        for (name, embedding), vectors_KD in self._banks.items():
            labels = batch.labels.get(name)
            if labels is not None:
                for row in torch.nonzero(labels >= 0).squeeze(1).tolist():
                    vectors_KD[labels[row]] = embeddings.unit(embedding)[row]


def _means(features_ND: Tensor, partition: Partition) -> Tensor:
    sums = features_ND.new_zeros(partition.num_clusters, features_ND.shape[1])
    chosen = partition.labels >= 0
    return normalize(sums.index_add_(0, partition.labels[chosen], features_ND[chosen]), dim=1)


class PlainLoss(Loss):
    """Contrast of every query with the prototypes of the partitions that it was drawn from."""

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        found = {}
        for name in batch.draw.partitions:
            if name in memory.names:
                value = contrast(memory.bank(name), embeddings.unit(), batch.labels[name], temperature=0.1)
                if value is not None:
                    found[f"plain/{name}"] = value
        return found
