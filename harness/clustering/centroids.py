"""Means of the features of clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import HarnessError


def balanced_means(features_ND: Tensor, labels_N: Tensor, modality_N: Tensor, num_clusters: int) -> Tensor:
    """The mean of each cluster's modality means, whatever their sizes, or the one mean there is; not normalised.

    Arguments and result as of :func:`cluster_means`, of clusters that all have members; ``modality_N`` int [N], 0 or 1.
    Source: pclhd.md 3.4.2; chcr.md.

    >>> features_ND = torch.tensor([[0.0], [2.0], [7.0]])
    >>> balanced_means(features_ND, torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]), 1).tolist()
    [[4.0]]
    """
    total_KD = features_ND.new_zeros(num_clusters, features_ND.shape[1])
    modalities_K = features_ND.new_zeros(num_clusters)
    for modality in (0, 1):
        labels = torch.where(modality_N == modality, labels_N, -1)
        total_KD += cluster_means(features_ND, labels, num_clusters)
        modalities_K += torch.bincount(labels[labels >= 0], minlength=num_clusters) > 0
    return total_KD / modalities_K[:, None]


def cluster_means(features_ND: Tensor, labels_N: Tensor, num_clusters: int) -> Tensor:
    """The mean feature of each cluster, not normalised.

    ``features_ND`` float [N, D]; ``labels_N`` int [N], −1 = in no cluster. Returns [num_clusters, D] of the
    features' dtype and device; a cluster without members gets a zero row. The same bits on every call, on any
    device.

    Raises ``HarnessError`` for labels that do not fit.

    >>> cluster_means(torch.tensor([[0.0], [2.0], [7.0]]), torch.tensor([0, 0, -1]), 2).tolist()
    [[1.0], [0.0]]
    """
    if labels_N.shape != features_ND.shape[:1]:
        raise HarnessError(
            f"{tuple(labels_N.shape)} labels were given for features {tuple(features_ND.shape)}; one label per "
            "row was expected."
        )
    if labels_N.numel() and int(labels_N.max()) >= num_clusters:
        raise HarnessError(
            f"Label {int(labels_N.max())} was given where there are {num_clusters} clusters; labels run from 0 to "
            f"{num_clusters - 1}, with −1 for no cluster."
        )
    if num_clusters == 0:
        return features_ND.new_zeros(0, features_ND.shape[1])
    members = labels_N >= 0
    labels, order = labels_N[members].long().sort(stable=True)
    counts_K = torch.bincount(labels, minlength=num_clusters)
    # Sorted segments instead of scattered additions: on a GPU those add in an order that changes from run to run.
    sums_KD = torch.segment_reduce(features_ND[members][order], "sum", lengths=counts_K, axis=0, initial=0.0)
    return sums_KD / counts_K.clamp(min=1)[:, None].to(sums_KD.dtype)
