"""Cluster contrast per modality and embedding (hil.md 3.6 a, 3.8)."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contracts import OUTLIER, Batch, Embeddings, EpochContext, Loss, Memory
from harness.contrast import contrast
from harness_hil.options import BranchContrastOptions
from harness_hil.prototypes import MODALITIES, branches, centroids, partition_for


class BranchContrastLoss(Loss):
    """Terms ``branch-contrast/<modality>/<embedding>``: a mean over each modality's labelled queries.

    Queries meet the joint clusters' centroids, which the modalities share, or where batches have no joint labels those
    of their modality. Infrared terms come first, as in the released code, whose order decides gradients where the
    backward pass changes the centroids.
    """

    options: BranchContrastOptions

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        labelled, terms = set(batch.labels) & set(memory.names), {}
        for branch in branches(embeddings):
            for modality, code in reversed(MODALITIES):
                name = partition_for(modality, labelled)
                if name is None:
                    continue
                labels_B = torch.where(batch.modality == code, batch.labels[name], OUTLIER)
                bank = centroids(memory.bank(name, embedding=branch))
                value = contrast(bank, embeddings.unit(branch), labels_B, temperature=self.options.temperature)
                if value is not None:
                    terms[f"branch-contrast/{modality}/{branch}"] = self.options.weight * value
        return terms
