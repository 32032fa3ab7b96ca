"""Prototypes, and their aggregation across modalities (ADCA's CMA, its second half).

Shape letters: K visible clusters, L infrared clusters, D embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness import (
    Bank,
    Batch,
    ContractError,
    Embeddings,
    EpochContext,
    Memory,
    PseudoLabels,
    Setup,
    cluster_means,
    momentum_update,
)
from harness_adca.options import MemoryOptions


class AggregatedMemory(Memory):
    """One prototype per cluster: the mean as an epoch begins, then updated with momentum by every image of a batch.

    In stages with cross-modality evidence, visible prototypes take in the infrared ones that the labels link them to,
    before the first batch.
    """

    options: MemoryOptions
    changing = ("_banks",)

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._banks: dict[tuple[str, str], Tensor] = {}
        self._unit = True

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        to_infrared_K = labels.link("visible", "infrared") if epoch.cross else None
        self._unit = to_infrared_K is None or self.options.renormalise
        self._banks = {}
        for embedding in self.setup.embedding_dims:
            features_ND = epoch.features(embedding=embedding)
            banks = {name: prototypes(features_ND, labels, name) for name in labels.available}
            if to_infrared_K is not None:
                mixed = aggregated(banks["visible"], banks["infrared"], to_infrared_K, keep=self.options.keep)
                banks["visible"] = normalize(mixed, dim=1) if self.options.renormalise else mixed
            self._banks |= {(name, embedding): bank for name, bank in banks.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self._banks))

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        if (name, embedding) not in self._banks:
            raise ContractError(f"this memory has no bank {name!r} of embedding {embedding!r}.")
        return Bank.of_centroids(self._banks[name, embedding], unit=self._unit)

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        for (name, embedding), vectors_KD in self._banks.items():
            if name in batch.labels:
                self._banks[name, embedding] = momentum_update(
                    vectors_KD, embeddings.unit(embedding), batch.labels[name], momentum=self.options.momentum
                )


def prototypes(features_ND: Tensor, labels: PseudoLabels, name: str) -> Tensor:
    """The clusters' mean features as unit rows [K, D]."""
    return normalize(cluster_means(features_ND, labels[name].labels, labels[name].num_clusters), dim=1)


def aggregated(visible_KD: Tensor, infrared_LD: Tensor, to_infrared_K: Tensor, *, keep: float) -> Tensor:
    """Linked visible rows as keep · own + (1 - keep) · partner, the others as they are; not normalised [K, D]."""
    linked_K = to_infrared_K >= 0
    mixed_KD = visible_KD.clone()
    mixed_KD[linked_K] = keep * visible_KD[linked_K] + (1 - keep) * infrared_LD[to_infrared_K[linked_K]]
    return mixed_KD
