"""CHCR's memory (chcr.md 3.5; momentum as in later code of the same first author).

The spec's modality bank M[m, k] is not kept apart: after joint clustering the core derives the partitions "visible" and
"infrared" from the joint one, and the banks of these *are* the valid rows of M[visible, .] and M[infrared, .]. So
CHCR's losses work with any memory, and this memory with any losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.clustering.centroids import cluster_means
from harness.contracts import OUTLIER, Partition
from harness_baseline.memory import ClusterMemory
from harness_chcr.options import JointMemoryOptions


class JointMemory(ClusterMemory):
    """The cluster memory; with ``balanced_mean`` both modalities weigh the same in a prototype."""

    options: JointMemoryOptions

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        if not self.options.balanced_mean:
            return super().prototypes(features_ND, partition)
        train, count = self.setup.train, partition.num_clusters
        total = features_ND.new_zeros(count, features_ND.shape[1])
        for scope in (train.visible, train.infrared):
            labels = torch.where(scope, partition.labels, OUTLIER)
            present = torch.bincount(labels[labels >= 0], minlength=count) > 0
            total += torch.where(present[:, None], cluster_means(features_ND, labels, count), 0.0)
        return total
