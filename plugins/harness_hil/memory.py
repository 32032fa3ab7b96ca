"""Centroids and sub-centres of every cluster (hil.md 3.4, 3.6 a).

Known deviations from the released code: cluster means are means of normalised features; with ``memory_grad = "clean"``
gradients are taken with the centroids as they were at the start of the step. Ours: sub-centres are also made of
partitions of one modality, where no joint one labels the batches.
"""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import Bank, BankKind, Batch, Embeddings, EpochContext, Partition, PseudoLabels
from harness.memory_updates import ReleasedSimilarity, momentum_update_, multi_centre_update_
from harness_baseline.memory import PrototypeMemory
from harness_hil.options import MultiCentreMemoryOptions
from harness_hil.phases import warming_up
from harness_hil.prototypes import branches, contrasted

Key = tuple[str, str]
"""Partition and embedding."""


class MultiCentreMemory(PrototypeMemory):
    """Per partition the centroids of its clusters, moved with momentum, then J sub-centres of each.

    Partitions by which batches are labelled have sub-centres, outside a warm-up: made anew every epoch, and constant
    within it unless ``update_multi``. Centroids and sub-centres of a bank lie in one tensor, changed in place.
    """

    options: MultiCentreMemoryOptions
    changing = ("_banks", "_rows")

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        first = self.options.first_momentum
        early = first is not None and warming_up(epoch) and epoch.index == 0
        self._momentum = first if early else self.options.momentum
        self._centres: dict[Key, Tensor] = {}
        self._rows: dict[Key, Tensor] = {}

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        if warming_up(epoch):
            return
        for embedding in branches(self.setup.embedding_dims):
            features_ND = epoch.features(embedding=embedding)
            for name in contrasted(labels):
                self._add_centres(name, embedding, features_ND, labels[name])

    def _add_centres(self, name: str, embedding: str, features_ND: Tensor, partition: Partition) -> None:
        options, key = self.options, (name, embedding)
        centres_KJD = sub_centres(features_ND, partition, count=options.sub_centres, blend=options.blend)
        clusters = partition.num_clusters
        self._rows[key] = torch.cat([self._banks[key], centres_KJD.flatten(0, 1)])
        self._banks[key] = self._rows[key][:clusters]
        self._centres[key] = self._rows[key][clusters:].view(centres_KJD.shape)

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        centroids_KD = self.vectors(name, embedding)
        rows_MD = self._rows.get((name, embedding), centroids_KD)
        cluster, kind = self._layout(rows_MD, clusters=len(centroids_KD))
        if self.options.memory_grad == "clean":
            return Bank(rows_MD, cluster, kind=kind)
        # The copy keeps losses that use the vectors themselves clear of changes made inside the backward pass.
        rows_MD = rows_MD.clone()
        released = ReleasedSimilarity(centroids_KD, update=self.updated)

        def similarity(queries_BD: Tensor, labels_B: Tensor) -> Tensor:
            constant = rows_MD[len(centroids_KD) :].to(queries_BD.dtype)
            return torch.cat([released(queries_BD, labels_B), queries_BD @ constant.T], dim=1)

        return Bank(rows_MD, cluster, kind=kind, similarity=similarity)

    def _layout(self, rows_MD: Tensor, *, clusters: int) -> tuple[Tensor, Tensor]:
        own = torch.arange(clusters, device=rows_MD.device)
        per_cluster = max(0, len(rows_MD) // max(1, clusters) - 1)
        cluster = torch.cat([own, own.repeat_interleave(per_cluster)])
        kind = torch.full_like(cluster, BankKind.SUB_CENTRE)
        kind[:clusters] = BankKind.CENTROID
        return cluster, kind

    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The centroids after a batch, changed in place."""
        return momentum_update_(vectors_KD, queries_BD, labels_B, momentum=self._momentum)

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        if self.options.memory_grad == "clean":
            super().update(batch, embeddings)
        if self.options.update_multi:
            for (name, embedding), centres_KJD in self._centres.items():
                if name in batch.labels:
                    queries = embeddings.unit(embedding)
                    multi_centre_update_(centres_KJD, queries, batch.labels[name], momentum=self._momentum)


def sub_centres(features_ND: Tensor, partition: Partition, *, count: int, blend: float) -> Tensor:
    """J = ``count`` + 1 unit rows per cluster, float [K, J, D]: its mean, then what k-means splits it into.

    A sub-centre is ``blend`` · mean + (1 − ``blend``) · mean of its group. A cluster of ``count`` images or fewer, or
    with fewer distinct ones, gets its mean J times. The same bits on every call. Source:
    hil.md 3.4 B.
    """
    means_KD = cluster_means(features_ND, partition.labels, partition.num_clusters)
    centres_KJD = means_KD[:, None].repeat(1, count + 1, 1)
    order = partition.labels.sort(stable=True).indices[len(partition.labels) - int(partition.sizes.sum()) :]
    members = features_ND[order].cpu().split(partition.sizes.tolist())
    # One thread: several would add in an order that changes from run to run.
    with threadpool_limits(limits=1):
        for cluster, rows_GD in enumerate(members):
            groups = _split(rows_GD, count) if len(rows_GD) > count else None
            if groups is not None:
                group_means = cluster_means(rows_GD, groups, count).to(means_KD)
                centres_KJD[cluster, 1:] = blend * means_KD[cluster] + (1 - blend) * group_means
    return normalize(centres_KJD, dim=2)


def _split(rows_GD: Tensor, count: int) -> Tensor | None:
    """The group of each image by k-means, int64 [G]; None if there are fewer than ``count`` distinct ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than groups: seen below
        groups = KMeans(count, n_init=10, random_state=0).fit_predict(rows_GD.numpy())
    groups = torch.as_tensor(groups, dtype=torch.int64)
    return groups if len(groups.unique()) == count else None
