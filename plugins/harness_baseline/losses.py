"""Cluster contrast within partitions, and across modalities (baseline.md 4.3, 4.5, 5.2)."""

from __future__ import annotations

from torch import Tensor

from harness.contracts import Batch, Embeddings, EpochContext, Loss, Memory
from harness.contrast import contrast
from harness_baseline.cross import cross_directions
from harness_baseline.options import ContrastOptions, CrossContrastOptions


class ContrastLoss(Loss):
    """One term per partition of the draw: the mean over its labelled queries. Terms ``contrast/<partition>``."""

    options: ContrastOptions

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms = {}
        for name in batch.draw.partitions:
            if name in memory.names:
                value = contrast(
                    memory.bank(name), embeddings.unit(), batch.labels[name], temperature=self.options.temperature
                )
                if value is not None:
                    terms[f"contrast/{name}"] = self.options.weight * value
        return terms


class CrossContrastLoss(Loss):
    """Queries of one modality against the other one's bank, by the linked labels. Terms ``cross-contrast/<modality>``.

    Silent in stages without cross-modality evidence, and where visible and infrared clusters are not linked.
    """

    options: CrossContrastOptions

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms = {}
        for source, target in cross_directions(epoch, self.options.direction):
            labels = batch.linked(source, target)
            if labels is not None and target in memory.names:
                value = contrast(memory.bank(target), embeddings.unit(), labels, temperature=self.options.temperature)
                if value is not None:
                    terms[f"cross-contrast/{source}"] = self.options.weight * value
        return terms
