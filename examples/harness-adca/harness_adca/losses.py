"""Dual contrast: visible images with visible prototypes, infrared images with infrared ones."""

from __future__ import annotations

from torch import Tensor

from harness import Batch, Embeddings, EpochContext, Loss, Memory, cluster_contrast
from harness_adca.options import ContrastOptions


class DualContrast(Loss):
    """One term per partition of the draw: ``adca-contrast/<partition>``, the mean over its labelled queries."""

    options: ContrastOptions

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms = {}
        for name in batch.draw.partitions:
            if name in memory.names:
                value = cluster_contrast(
                    memory.bank(name), embeddings.unit(), batch.labels[name], temperature=self.options.temperature
                )
                if value is not None:
                    terms[f"adca-contrast/{name}"] = self.options.weight * value
        return terms
