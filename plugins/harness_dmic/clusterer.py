"""MIE and DNC: clustering that is invariant to modality and camera, on a schedule (dmic.md 3.2, 3.3).

Stated by the paper: the equal shares of cameras, the schedules and their values, a joint clustering in the second phase
beside those of each modality. Reconstructed from public code of the same authors: the Jaccard distance around the
expansion, ``min_samples``, and what :mod:`harness_dmic.expansion` and :mod:`harness_dmic.schedules` list.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.contracts import OUTLIER, Clusterer, EpochContext, PseudoLabels, TrainIndex, compact
from harness_baseline.clusterer import clustering_features
from harness_dmic.expansion import CameraGroups, InvariantExpansion
from harness_dmic.options import DncOptions, MieOptions
from harness_dmic.schedules import eps_at, k2_at


@dataclass(frozen=True, slots=True)
class Search:
    """How one set of images is clustered: ``k1`` of the encoding, ``width`` of the expansion, ``eps`` of DBSCAN."""

    k1: int
    width: int
    eps: float
    expansion: Callable[[CameraGroups], InvariantExpansion]


class InvariantClusterer(Clusterer):
    """Partitions ``"visible"`` and ``"infrared"``; in stages with cross-modality evidence also ``"joint"``.

    Subclass it and override :meth:`search`.
    """

    options: MieOptions

    @abstractmethod
    def search(self, epoch: EpochContext, *, joint: bool) -> Search:
        """How images are clustered in this epoch, over both modalities or within one."""

    def cluster(self, epoch: EpochContext) -> PseudoLabels:
        train = epoch.train
        features_ND = clustering_features(epoch, centre_cameras=self.options.centre_cameras)
        within = self.search(epoch, joint=False)
        labels = {
            "visible": self._labels(epoch, features_ND, train.visible, search=within),
            "infrared": self._labels(epoch, features_ND, train.infrared, search=within),
        }
        if epoch.cross:
            everything = torch.ones_like(train.visible)
            joint = self._labels(epoch, features_ND, everything, search=self.search(epoch, joint=True))
            labels["joint"] = mixed_clusters(joint, train) if self.options.joint_require_mixed else joint
        return PseudoLabels(train, labels)

    def _labels(self, epoch: EpochContext, features_ND: Tensor, rows_N: Tensor, *, search: Search) -> Tensor:
        """Clusters of the images of a mask: int64 [N], −1 = outlier or not in the mask."""
        labels = torch.full((len(features_ND),), OUTLIER, dtype=torch.int64, device=features_ND.device)
        if not bool(rows_N.any()):
            return labels
        train = epoch.train
        expansion = search.expansion(CameraGroups.of(train.modality[rows_N], train.camera[rows_N]))
        distance = expanded_jaccard(
            features_ND[rows_N],
            k1=search.k1,
            width=search.width,
            expansion=expansion,
            max_distance=search.eps,
            neighbours=epoch.neighbours,
        )
        found = dbscan(distance, eps=search.eps, min_samples=self.options.min_samples)
        return labels.masked_scatter(rows_N, torch.from_numpy(found).to(labels))


class MieClusterer(InvariantClusterer):
    """MIE with a constant radius and constant numbers of neighbours."""

    def search(self, epoch: EpochContext, *, joint: bool) -> Search:
        options = self.options
        k1, k2 = (options.k1_joint, options.k2_joint) if joint else (options.k1_intra, options.k2_intra)
        return Search(k1, min(k1, k2), options.eps, partial(InvariantExpansion, form=options.expansion))


class DncClusterer(InvariantClusterer):
    """MIE under DNC's schedules."""

    options: DncOptions

    def search(self, epoch: EpochContext, *, joint: bool) -> Search:
        options = self.options
        eps = eps_at(epoch.epoch, epoch.stage_epochs, cross=epoch.cross, schedule=options)
        horizon = options.k2_horizon or epoch.stage_epochs
        growing = k2_at(epoch.epoch, horizon, start=options.k2_intra, growth=options.k2_growth)
        k1, k2 = (options.k1_joint, options.k2_joint) if joint else (options.k1_intra, growing)
        return Search(k1, min(k1, k2), eps, partial(InvariantExpansion, form=options.expansion))


def expanded_jaccard(
    features_ND: Tensor,
    *,
    k1: int,
    width: int,
    expansion: InvariantExpansion,
    max_distance: float | None = None,
    neighbours: Callable[[Tensor, int], Tensor] = nearest_neighbours,
) -> csr_matrix:
    """The k-reciprocal Jaccard distance with an expansion that looks at ``width`` neighbours, also beyond ``k1``.

    ``neighbours`` searches: ``(features [N, D], k) -> [N, k]``. Other arguments and result as in
    ``harness.clustering.jaccard.k_reciprocal_jaccard``.
    """
    ranking_NK = neighbours(features_ND, max(k1, width))
    return k_reciprocal_jaccard(
        features_ND, k1=k1, k2=width, expansion=expansion, max_distance=max_distance, ranking_NK=ranking_NK
    )


def mixed_clusters(labels_N: Tensor, train: TrainIndex) -> Tensor:
    """The labels with clusters of one modality only dissolved, compacted; int64 [N]."""
    count = int(labels_N.max()) + 1 if labels_N.numel() else 0
    held = [
        torch.bincount(labels_N[scope & (labels_N >= 0)], minlength=count) > 0
        for scope in (train.visible, train.infrared)
    ]
    mixed = (held[0] & held[1])[labels_N.clamp(min=0)] if count else labels_N >= 0
    return compact(torch.where(mixed, labels_N, OUTLIER))[0]
