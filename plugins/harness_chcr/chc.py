"""Cross-modality hierarchical clustering (chcr.md 3.2 and 3.3).

Stated by sources: both modalities are clustered together, without intra-modality warm-up; CHC promotes inter-modality
positives in one cluster. Reconstructed: the levels. Level 1 is DBSCAN on the k-reciprocal Jaccard distance over all
images; level 2 merges visible-only with infrared-only clusters whose centroids are each other's nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import OUTLIER, Clusterer, EpochContext, Modality, PseudoLabels, compact
from harness_baseline.clusterer import cluster_by_modality, clustering_features, dbscan_labels
from harness_chcr.options import ChcOptions


class ChcClusterer(Clusterer):
    """Joint clusters, merged across modalities: PseudoLabels with the partition ``"joint"``.

    With ``intra_stages = "apart"``, stages without cross-modality evidence get ``"visible"`` and ``"infrared"``.
    """

    options: ChcOptions

    def cluster(self, epoch: EpochContext) -> PseudoLabels:
        options, train = self.options, epoch.train
        features_ND = clustering_features(epoch, centre_cameras=options.centre_cameras)
        apart_options = options.model_copy(update={"k1": options.apart_k1})
        if options.intra_stages == "apart" and not epoch.cross:
            visible, infrared = cluster_by_modality(epoch, features_ND, options=apart_options)
            return PseudoLabels(train, {"visible": visible, "infrared": infrared})
        if options.mode == "bottom_up":
            visible, infrared = cluster_by_modality(epoch, features_ND, options=apart_options)
            offset = int(visible.max()) + 1
            labels = torch.where(infrared >= 0, infrared + offset, visible)
        else:
            labels = dbscan_labels(epoch, features_ND, options=options)
        if options.mode != "off":
            labels = merge_across_modalities(
                features_ND,
                labels,
                modality=train.modality,
                theta=options.theta,
                rounds=options.rounds,
                attach_to_mixed=options.attach_to_mixed,
            )
        return PseudoLabels(train, {"joint": labels})


def merge_across_modalities(
    features_ND: Tensor,
    labels_N: Tensor,
    *,
    modality: Tensor,
    theta: float = 0.5,
    rounds: int = 1,
    attach_to_mixed: bool = False,
) -> Tensor:
    """Level 2 of CHC: merge clusters of one modality with clusters of the other.

    ``features_ND`` float; ``labels_N`` int64, −1 = outlier; ``modality`` int64 [N]. Two clusters merge if their
    centroids are each other's nearest across modalities (ties: lower id) and at most ``theta`` apart in cosine
    distance. All merges of a round are decided together; the merged cluster takes the smallest id. Returns labels [N],
    compacted.
    """
    labels, _ = compact(labels_N)
    for _ in range(rounds):
        merged = _merge_once(features_ND, labels, modality=modality, theta=theta, attach_to_mixed=attach_to_mixed)
        if torch.equal(merged, labels):
            break
        labels = merged
    return labels


def _merge_once(
    features_ND: Tensor, labels_N: Tensor, *, modality: Tensor, theta: float, attach_to_mixed: bool
) -> Tensor:
    count = int(labels_N.max()) + 1 if labels_N.numel() else 0
    visible_KD, has_visible = _centroids(features_ND, labels_N, modality == Modality.VISIBLE, count)
    infrared_KD, has_infrared = _centroids(features_ND, labels_N, modality == Modality.INFRARED, count)
    mixed = has_visible & has_infrared
    rows = torch.nonzero(has_visible if attach_to_mixed else has_visible & ~mixed).squeeze(1)
    columns = torch.nonzero(has_infrared if attach_to_mixed else has_infrared & ~mixed).squeeze(1)
    if not rows.numel() or not columns.numel():
        return labels_N
    distance = 1 - visible_KD[rows] @ infrared_KD[columns].T
    distance[mixed[rows][:, None] & mixed[columns][None, :]] = torch.inf
    nearest_column, nearest_row = distance.argmin(dim=1), distance.argmin(dim=0)
    here = torch.arange(len(rows), device=rows.device)
    chosen = (nearest_row[nearest_column] == here) & (distance[here, nearest_column] <= theta)
    return compact(_rename(labels_N, rows[chosen], columns[nearest_column[chosen]], count))[0]


def _centroids(features_ND: Tensor, labels_N: Tensor, scope_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
    labels = torch.where(scope_N, labels_N, OUTLIER)
    present = torch.bincount(labels[labels >= 0], minlength=count) > 0
    return normalize(cluster_means(features_ND, labels, count), dim=1), present


def _rename(labels_N: Tensor, left: Tensor, right: Tensor, count: int) -> Tensor:
    name = torch.arange(count, device=labels_N.device)
    # A mixed cluster may take in one cluster of each modality: two passes carry the smallest id through such a chain.
    for _ in range(2):
        lower = torch.minimum(name[left], name[right])
        name[left] = torch.minimum(name[left], lower)
        name[right] = torch.minimum(name[right], lower)
    return torch.where(labels_N >= 0, name[labels_N.clamp(min=0)], OUTLIER)
