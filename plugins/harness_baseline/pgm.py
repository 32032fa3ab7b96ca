"""Association of visible and infrared clusters (PGM: Wu and Ye, CVPR 2023; baseline.md 5.2).

Known deviations from the released code: every cluster gets a partner however many more clusters one modality has (the
released code stops with an error, or loses the cross-modality loss), on SYSU-MM01 as on RegDB.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import EpochContext, LabelRefiner, PseudoLabels
from harness.matching import mutual_nearest_clusters, progressive_graph_matching
from harness_baseline.clusterer import clustering_features
from harness_baseline.options import PgmOptions


class ProgressiveGraphMatching(LabelRefiner):
    """Links ``"visible"`` and ``"infrared"`` both ways, in stages with cross-modality evidence; else changes nothing.

    After a joint clusterer the restrictions of the joint partition are matched; batches are drawn from it as before.
    """

    options: PgmOptions

    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        if not epoch.cross or "visible" not in labels or "infrared" not in labels:
            return labels
        if not labels["visible"].num_clusters or not labels["infrared"].num_clusters:
            return labels
        features_ND = clustering_features(epoch, centre_cameras=self.options.centre_cameras)
        visible_KD, infrared_KD = (_unit_means(features_ND, labels, name) for name in ("visible", "infrared"))
        match = progressive_graph_matching if self.options.matching == "progressive" else mutual_nearest_clusters
        to_infrared, to_visible = match(visible_KD, infrared_KD)
        return labels.replace(links={("visible", "infrared"): to_infrared, ("infrared", "visible"): to_visible})


def _unit_means(features_ND: Tensor, labels: PseudoLabels, name: str) -> Tensor:
    partition = labels[name]
    return normalize(cluster_means(features_ND, partition.labels, partition.num_clusters), dim=1)
