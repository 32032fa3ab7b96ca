"""The joint branch: one more clustering, of both modalities together (pclhd.md 3.2, 3.4, 3.10; ALL in released code).

Clusters that hold both modalities become the partition ``"joint"``, from which a second batch is drawn in every
iteration. The others become ``"joint-single"``: no batch is drawn from it, but its centroids are negatives of the joint
contrast, as in the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import modality_balanced
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.contracts import OUTLIER, EpochContext, LabelRefiner, PseudoLabels, TrainIndex, compact
from harness_baseline.clusterer import clustering_features
from harness_pclhd.options import JointBranchOptions

SINGLE = "joint-single"
"""Joint clusters of one modality."""


class JointBranch(LabelRefiner):
    """Adds ``"joint"`` in stages with cross-modality evidence, unless there are joint labels already.

    Links between visible and infrared clusters stay as they are.
    """

    options: JointBranchOptions

    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        if not self.options.use_all:
            return labels
        if not epoch.cross:
            if epoch.stages == 1:
                epoch.note(
                    "no joint clustering, because the recipe has no stage with cross-modality evidence; one that has "
                    "is --recipe pclhd."
                )
            return labels
        if "joint" in labels.given:
            epoch.note("no joint clustering of its own, because the labels it was given hold joint clusters already.")
            return labels
        features_ND = clustering_features(epoch, centre_cameras=self.options.centre_cameras)
        shared, single = split_by_modality(self._clusters(epoch, features_ND), epoch.train)
        if not bool((shared >= 0).any()):
            epoch.note("there are epochs without joint batches, because no joint cluster holds both modalities.")
            return labels
        return labels.replace({"joint": shared, **({SINGLE: single} if bool((single >= 0).any()) else {})})

    def _clusters(self, epoch: EpochContext, features_ND: Tensor) -> Tensor:
        options = self.options
        distance = k_reciprocal_jaccard(
            features_ND,
            k1=options.k1,
            k2=options.k2,
            expansion=modality_balanced(epoch.train.modality),
            max_distance=options.eps,
            ranking_NK=epoch.neighbours(features_ND, options.k1),
        )
        found = dbscan(distance, eps=options.eps, min_samples=options.min_samples)
        return torch.from_numpy(found).to(features_ND.device)


def split_by_modality(labels_N: Tensor, train: TrainIndex) -> tuple[Tensor, Tensor]:
    """Labels of the clusters that hold both modalities, and of those that hold one; int64 [N], each from 0, −1 = else.

    ``labels_N`` int64 [N], −1 = outlier.
    """
    clustered = labels_N >= 0
    count = int(labels_N.max()) + 1 if labels_N.numel() else 0
    held = [
        torch.bincount(labels_N[clustered & scope], minlength=count) > 0 for scope in (train.visible, train.infrared)
    ]
    both = torch.cat([held[0] & held[1], held[0].new_zeros(1)])[labels_N]
    shared = torch.where(both, labels_N, OUTLIER)
    single = torch.where(clustered & ~both, labels_N, OUTLIER)
    return compact(shared)[0], compact(single)[0]
