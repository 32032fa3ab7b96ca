"""Memories with one prototype per cluster (baseline.md 4.3, 5.1, 5.2).

:class:`PrototypeMemory` is the frame that other methods' memories subclass; :class:`ClusterMemory` is the baseline's.

Known deviations from the released code of ADCA and PGM, unless ``memory_grad = "released"``: gradients are taken with
the banks as they were at the start of the step, and all updates come after it, in the order visible, infrared, joint,
cross. There is a bank per embedding of the encoder, not of the main one only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import Bank, Batch, Embeddings, EpochContext, Memory, Partition, PseudoLabels, Setup
from harness.errors import ContractError
from harness.matching import greedy_vote_matching
from harness.memory_updates import ReleasedSimilarity, hard_update, momentum_update
from harness.providers import Options
from harness_baseline.cross import cross_directions
from harness_baseline.options import ClusterMemoryOptions


class PrototypeMemory(Memory):
    """A bank per partition in ``labels.available`` (and per embedding of the encoder) with one unit row per cluster.

    Subclass it and override :meth:`updated`; :meth:`prototypes`, :meth:`begin` and :meth:`updates` if need be.
    """

    changing: ClassVar[tuple[str, ...] | None] = ("_banks",)
    unit_rows = True
    """Whether rows have length 1."""

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        self._banks: dict[tuple[str, str], Tensor] = {}
        self._names: tuple[str, ...] = ()

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        """Called first in :meth:`build`: settle what holds for this epoch."""

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        """Rows [K, D] at the start of an epoch, not normalised: here the cluster means."""
        return cluster_means(features_ND, partition.labels, partition.num_clusters)

    @abstractmethod
    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The bank after a batch. ``labels_B`` are all valid, ``queries_BD`` unit rows in batch order."""

    def updates(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """(bank, labels [B] of the queries in it, −1 = leave out), in the order in which updates are made."""
        for name, labels in batch.labels.items():
            if name in self._names:
                yield name, labels

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        self.begin(epoch, labels)
        self._names = labels.available
        features = {embedding: epoch.features(embedding=embedding) for embedding in self.setup.embedding_dims}
        self._banks = {
            (name, embedding): normalize(self.prototypes(features_ND, labels[name]), dim=1)
            for name in self._names
            for embedding, features_ND in features.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        return Bank.of_centroids(self.vectors(name, embedding), unit=self.unit_rows)

    def vectors(self, name: str, embedding: str = "main") -> Tensor:
        """The rows [K, D] of one bank. Raises ContractError if there is no such bank."""
        if (name, embedding) not in self._banks:
            known = ", ".join(sorted({"/".join(key) for key in self._banks})) or "none before build()"
            raise ContractError(f"this memory has no bank {name!r} of embedding {embedding!r}; it has: {known}.")
        return self._banks[name, embedding]

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        for name, labels in self.updates(batch):
            chosen = labels >= 0
            if bool(chosen.any()):
                self._update_bank(name, embeddings, chosen, labels[chosen])

    def _update_bank(self, name: str, embeddings: Embeddings, chosen: Tensor, labels: Tensor) -> None:
        for embedding in embeddings:
            if (name, embedding) in self._banks:
                vectors, queries = self._banks[name, embedding], embeddings.unit(embedding)[chosen]
                self._banks[name, embedding] = self.updated(vectors, queries, labels)


class ClusterMemory(PrototypeMemory):
    """Cluster means, updated with momentum by every image (mean) or by the least similar one of each cluster (hard).

    ``association = "cma"``: after building, in stages with cross-modality evidence, matched visible prototypes take in
    the infrared ones, and are not renormalised, as in ADCA; their next update does that.
    """

    options: ClusterMemoryOptions

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        mode = self.options.mode
        self._hard = mode == "hard" or (mode == "mean-then-hard" and epoch.cross)
        self._directions = cross_directions(epoch, self.options.cross_update)
        self.unit_rows = not (self.options.association == "cma" and epoch.cross)

    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        rule = hard_update if self._hard else momentum_update
        return rule(vectors_KD, queries_BD, labels_B, momentum=self.options.momentum)

    def updates(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield from super().updates(batch)
        for source, target in self._directions:
            given = (source, target) in batch.pseudo_labels.links
            if given and {source, target} <= set(batch.draw.partitions) and target in self.names:
                linked = batch.linked(source, target)
                if linked is not None:
                    yield target, linked

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        vectors = self.vectors(name, embedding)
        if self.options.memory_grad == "clean":
            return Bank.of_centroids(vectors, unit=self.unit_rows)
        # The copy keeps losses that use the vectors themselves clear of changes made inside the backward pass.
        released = ReleasedSimilarity(vectors, update=self.updated)
        return Bank.of_centroids(vectors.clone(), similarity=released, unit=self.unit_rows)

    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        if self.options.memory_grad == "clean":
            super().update(batch, embeddings)

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        if self.options.association == "cma" and epoch.cross:
            self._aggregate(epoch, labels)

    def _aggregate(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        if "visible" not in labels or "infrared" not in labels:
            return
        visible, infrared = epoch.train.visible, epoch.train.infrared
        features_ND = epoch.features()
        pairs = greedy_vote_matching(
            features_ND[visible],
            features_ND[infrared],
            visible_labels_N=labels["visible"].labels[visible],
            infrared_labels_M=labels["infrared"].labels[infrared],
            threshold=self.options.association_threshold,
        )
        if not pairs:
            return
        taking, giving = torch.tensor(pairs, device=features_ND.device).T
        keep = self.options.association_keep
        for embedding in self.setup.embedding_dims:
            own, other = self._banks["visible", embedding], self._banks["infrared", embedding]
            own[taking] = keep * own[taking] + (1 - keep) * other[giving]
