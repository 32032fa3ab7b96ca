"""k-reciprocal Jaccard distance and DBSCAN (baseline.md 4.1, 4.2), and the pieces that other clusterers use."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.clustering.centring import centre_by_camera
from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.contracts import OUTLIER, Clusterer, EpochContext, PseudoLabels
from harness_baseline.options import DbscanOptions


class ModalityDbscan(Clusterer):
    """Clusters visible and infrared images apart: PseudoLabels with the partitions ``"visible"`` and ``"infrared"``."""

    options: DbscanOptions

    def cluster(self, epoch: EpochContext) -> PseudoLabels:
        features_ND = clustering_features(epoch, centre_cameras=self.options.centre_cameras)
        visible, infrared = cluster_by_modality(epoch, features_ND, options=self.options)
        return PseudoLabels(epoch.train, {"visible": visible, "infrared": infrared})


def clustering_features(epoch: EpochContext, *, centre_cameras: bool, view: str = "plain") -> Tensor:
    """The epoch's features [N, D] of one view, with every camera's mean taken off if asked for."""
    features_ND = epoch.features(view=view)
    return centre_by_camera(features_ND, epoch.train.camera) if centre_cameras else features_ND


def cluster_by_modality(epoch: EpochContext, features_ND: Tensor, *, options: DbscanOptions) -> tuple[Tensor, Tensor]:
    """Labels of the visible images and labels of the infrared images, each int64 [N] with −1 for the other modality."""
    visible = dbscan_labels(epoch, features_ND, options=options, rows=epoch.train.visible)
    infrared = dbscan_labels(epoch, features_ND, options=options, rows=epoch.train.infrared)
    return visible, infrared


def dbscan_labels(
    epoch: EpochContext, features_ND: Tensor, *, options: DbscanOptions, rows: Tensor | None = None
) -> Tensor:
    """Clusters of the images of the boolean mask ``rows`` [N] (default: all): int64 [N], −1 = outlier or not chosen."""
    chosen = features_ND if rows is None else features_ND[rows]
    labels = torch.full((len(features_ND),), OUTLIER, dtype=torch.int64, device=features_ND.device)
    if len(chosen):
        ranking_NK = epoch.neighbours(chosen, options.k1)
        distance = k_reciprocal_jaccard(
            chosen, k1=options.k1, k2=options.k2, max_distance=options.eps, ranking_NK=ranking_NK
        )
        found = torch.from_numpy(dbscan(distance, eps=options.eps, min_samples=options.min_samples)).to(labels)
        labels = found if rows is None else labels.masked_scatter(rows, found)
    return labels
