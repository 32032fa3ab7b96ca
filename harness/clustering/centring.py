"""Removal of what all images of a camera share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means


def centre_by_camera(features_ND: Tensor, camera_N: Tensor) -> Tensor:
    """Each feature minus its camera's mean, as a unit row.

    ``features_ND`` float [N, D]; ``camera_N`` int [N], any numbering. Returns [N, D]; a row that equals its
    camera's mean (a camera with a single image) becomes zero.

    >>> features_ND = torch.tensor([[5.0, 1.0], [5.0, -1.0], [3.0, 0.0], [1.0, 0.0]])
    >>> centre_by_camera(features_ND, torch.tensor([1, 1, 6, 6])).tolist()
    [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]]
    """
    cameras, camera_index_N = torch.unique(camera_N, return_inverse=True)
    means_CD = cluster_means(features_ND, camera_index_N, cameras.numel())
    return normalize(features_ND - means_CD[camera_index_N], dim=1)
