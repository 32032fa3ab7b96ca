"""CHCR's memory (chcr.md 3.5; momentum as in later code of the same first author).

The spec's modality bank M[m, k] is not kept apart: after joint clustering the core derives the partitions "visible" and
"infrared" from the joint one, and the banks of these *are* the valid rows of M[visible, .] and M[infrared, .]. So
CHCR's losses work with any memory, and this memory with any losses.
"""

from __future__ import annotations

from torch import Tensor

from harness.clustering.centroids import balanced_means
from harness.contracts import Partition
from harness_baseline.memory import ClusterMemory
from harness_chcr.options import JointMemoryOptions


class JointMemory(ClusterMemory):
    """The cluster memory; with ``balanced_mean`` both modalities weigh the same in a prototype."""

    options: JointMemoryOptions

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        if not self.options.balanced_mean:
            return super().prototypes(features_ND, partition)
        return balanced_means(features_ND, partition.labels, self.setup.train.modality, partition.num_clusters)
