"""Cross-modality instance selection: what prototypes of one modality take from the other one (ecul.md 3.2).

Stated by sources: that there is inter-modality instance selection and aggregation of memories. Reconstructed: the two
rules, from ADCA's released code (cma) and from public code of the same first author's later method
(bidirectional_mean).

Shape letters: N visible and M infrared images, K visible and L infrared clusters, D feature size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.clustering.centroids import cluster_means
from harness.contracts import OUTLIER
from harness.matching import greedy_vote_matching

KEPT = 0.4
"""Share of a prototype that survives ``bidirectional_mean``."""


@torch.no_grad()
def aggregated(
    visible_KD: Tensor,
    infrared_LD: Tensor,
    pairs: list[tuple[int, int]],
    *,
    keep: float,
    direction: Literal["r_to_v", "both"] = "r_to_v",
) -> tuple[Tensor, Tensor]:
    """ADCA's aggregation: a visible prototype ← keep · itself + (1 − keep) · the infrared one of its pair.

    ``pairs``: one-to-one (visible, infrared) clusters. With "both" infrared prototypes take in the visible ones, as
    they were, likewise. Returns the new banks, not renormalised.
    """
    if not pairs:
        return visible_KD, infrared_LD
    rows, columns = torch.tensor(pairs, device=visible_KD.device).T
    visible, infrared = visible_KD.clone(), infrared_LD.clone()
    visible[rows] = keep * visible_KD[rows] + (1 - keep) * infrared_LD[columns]
    if direction == "both":
        infrared[columns] = keep * infrared_LD[columns] + (1 - keep) * visible_KD[rows]
    return visible, infrared


@torch.no_grad()
def bidirectional_means(
    features: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], banks: tuple[Tensor, Tensor], *, threshold: float
) -> tuple[Tensor, Tensor]:
    """Each cluster moves the prototype of the other modality that its images resemble most.

    ``features`` [N, D], [M, D]; ``labels`` int64 [N], [M], −1 = outlier; ``banks`` [K, D], [L, D]: visible, infrared. A
    prototype ← 0.4 · itself + 0.6 · the mean of the cluster's images that resemble it by ``threshold`` or more; those
    of several clusters follow one another by cluster id. Similarities are to the banks as given. Returns new banks, not
    renormalised.
    """
    visible, infrared = range(2)
    to_infrared = _moved(features[visible], labels[visible], len(banks[visible]), banks[infrared], threshold)
    to_visible = _moved(features[infrared], labels[infrared], len(banks[infrared]), banks[visible], threshold)
    return to_visible, to_infrared


def _moved(features_ND: Tensor, labels_N: Tensor, clusters: int, bank_LD: Tensor, threshold: float) -> Tensor:
    if not clusters or not len(bank_LD):
        return bank_LD
    similarity_NL = (features_ND @ bank_LD.T).clamp(-1, 1)
    score_KL = cluster_means((similarity_NL - threshold).clamp(min=0), labels_N, clusters)
    best_K = score_KL.argmax(dim=1)
    to_best_N = similarity_NL.gather(1, best_K[labels_N.clamp(min=0), None]).squeeze(1)
    chosen_N = torch.where(to_best_N >= threshold, labels_N, OUTLIER)
    means_KD = cluster_means(features_ND, chosen_N, clusters)
    bank = bank_LD.clone()
    # Clusters, not images, one by one: several may move the same prototype, each from where the last one left it.
    for cluster in torch.nonzero(score_KL.amax(dim=1) > 0).squeeze(1).tolist():
        bank[best_K[cluster]] = KEPT * bank[best_K[cluster]] + (1 - KEPT) * means_KD[cluster]
    return bank


def matched(
    features: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], *, threshold: float
) -> list[tuple[int, int]]:
    """One-to-one (visible, infrared) clusters by the votes of similar image pairs (ADCA)."""
    return greedy_vote_matching(
        features[0], features[1], visible_labels_N=labels[0], infrared_labels_M=labels[1], threshold=threshold
    )
