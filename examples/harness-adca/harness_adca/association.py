"""Association of visible and infrared clusters, once per epoch (ADCA's CMA, its first half).

Shape letters: N images, K visible clusters, L infrared clusters, D feature size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness import (
    NO_PARTNER,
    EpochContext,
    LabelRefiner,
    PseudoLabels,
    cluster_means,
    greedy_vote_matching,
    mutual_nearest_clusters,
)
from harness_adca.options import AssociationOptions


class Association(LabelRefiner):
    """Links ``"visible"`` and ``"infrared"`` one to one, in stages with cross-modality evidence; else changes nothing.

    After a joint clusterer, the restrictions of its clusters to a modality are linked.
    """

    options: AssociationOptions

    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        if not epoch.cross or "visible" not in labels or "infrared" not in labels:
            return labels
        features_ND = epoch.features()
        if self.options.matching == "votes":
            to_infrared_K, to_visible_L = by_votes(features_ND, labels, threshold=self.options.threshold)
        else:
            to_infrared_K, to_visible_L = by_means(features_ND, labels)
        return labels.replace(links={("visible", "infrared"): to_infrared_K, ("infrared", "visible"): to_visible_L})


def by_votes(features_ND: Tensor, labels: PseudoLabels, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Every pair of images at least that similar votes for its pair of clusters; most votes first, each cluster once.

    Returns maps (visible to infrared [K], infrared to visible [L]), -1 = no partner.
    """
    visible_N, infrared_N = labels.train.visible, labels.train.infrared
    visible, infrared = labels["visible"], labels["infrared"]
    pairs = greedy_vote_matching(
        features_ND[visible_N],
        features_ND[infrared_N],
        visible_labels_N=visible.labels[visible_N],
        infrared_labels_M=infrared.labels[infrared_N],
        threshold=threshold,
    )
    to_infrared_K = visible.labels.new_full((visible.num_clusters,), NO_PARTNER)
    to_visible_L = infrared.labels.new_full((infrared.num_clusters,), NO_PARTNER)
    if pairs:
        taking, giving = torch.tensor(pairs, device=visible.labels.device).T
        to_infrared_K[taking], to_visible_L[giving] = giving, taking
    return to_infrared_K, to_visible_L


def by_means(features_ND: Tensor, labels: PseudoLabels) -> tuple[Tensor, Tensor]:
    """Clusters whose means are each other's nearest. Returns maps as :func:`by_votes` does."""
    visible_KD, infrared_LD = (
        cluster_means(features_ND, labels[name].labels, labels[name].num_clusters) for name in ("visible", "infrared")
    )
    return mutual_nearest_clusters(visible_KD, infrared_LD)
