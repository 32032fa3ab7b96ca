"""Centroid and hard prototypes of every cluster (pclhd.md 3.4 to 3.6).

Known deviations from the released code with ``memory_grad = "clean"``: gradients are taken with the banks as they were
at the start of the step, and the updates, in the released order, come after it. With either: banks are kept per
partition and per embedding, also where the released code has none (a joint bank that is derived from links, further
embeddings), for the sake of other parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.clustering.centroids import balanced_means
from harness.contracts import (
    OUTLIER,
    Bank,
    BankKind,
    Batch,
    Embeddings,
    EpochContext,
    Modality,
    Partition,
    PseudoLabels,
)
from harness.memory_updates import ReleasedSimilarity, hybrid_update_, momentum_update_
from harness_baseline.cross import cross_directions
from harness_baseline.memory import PrototypeMemory
from harness_pclhd.joint import SINGLE
from harness_pclhd.options import HardMemoryOptions


class HardMemory(PrototypeMemory):
    """Per partition the centroids of its clusters, then as many hard prototypes; both start as the cluster's mean.

    The joint bank ends, in each half, with the centroids of single-modality joint clusters, which are negatives of all
    and do not change within an epoch. Banks are changed in place.
    """

    options: HardMemoryOptions

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        self._hybrid = epoch.cross or self.options.intra_stages == "hybrid"
        self._directions = cross_directions(epoch, self.options.cross_update)
        self._layout: dict[str, Tensor] = {}

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        return balanced_means(features_ND, partition.labels, self.setup.train.modality, partition.num_clusters)

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        single = {embedding: self.vectors(SINGLE, embedding) for name, embedding in self._banks if name == SINGLE}
        for name, embedding in self._banks:
            half = self._banks[name, embedding]
            own = torch.arange(len(half), device=half.device)
            if name == "joint" and single:
                half = torch.cat([half, single[embedding]])
                own = torch.cat([own, own.new_full((len(half) - len(own),), OUTLIER)])
            self._layout[name] = own
            self._banks[name, embedding] = half.repeat(2, 1) if self._hybrid else half

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        vectors, own = self.vectors(name, embedding), self._layout[name]
        kinds = (BankKind.CENTROID, BankKind.HARD) if self._hybrid else (BankKind.CENTROID,)
        kind = torch.cat([torch.full_like(own, kind) for kind in kinds])
        cluster = own.repeat(len(kinds))
        if self.options.memory_grad == "clean":
            return Bank(vectors, cluster, kind=kind)
        # The copy keeps losses that use the vectors themselves clear of changes made inside the backward pass.
        similarity = ReleasedSimilarity(vectors, update=self.updated)
        return Bank(vectors.clone(), cluster, kind=kind, similarity=similarity)

    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The bank after a batch, changed in place. ``labels_B`` may hold −1."""
        if not self._hybrid:
            return momentum_update_(vectors_KD, queries_BD, labels_B, momentum=self.options.momentum)
        centroids, hard = vectors_KD.chunk(2)
        options = self.options
        hybrid_update_(centroids, hard, queries_BD, labels_B, momentum=options.momentum, hardest=options.hard_k)
        return vectors_KD

    def updates(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """In the order of the released code's backward pass: across modalities, then visible, then infrared."""
        for source, target in self._directions:
            linked = batch.linked(source, target)
            if linked is not None and target in self.names:
                yield target, linked
        for modality, other in ((Modality.VISIBLE, "infrared"), (Modality.INFRARED, "visible")):
            for name, labels in batch.labels.items():
                if name in self.names and name != other:
                    yield name, torch.where(batch.modality == modality, labels, OUTLIER)

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        if self.options.memory_grad == "released":
            return
        for name, labels in self.updates(batch):
            for embedding in embeddings:
                if (name, embedding) in self._banks:
                    self.updated(self._banks[name, embedding], embeddings.unit(embedding), labels)
