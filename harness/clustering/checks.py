"""What every clustering function asks of the features it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import HarnessError, TrainingError


def checked_features(features_ND: Tensor) -> Tensor:
    """The features detached, in float64 if they were given so, else in float32.

    Raises ``HarnessError`` when they are no matrix, ``TrainingError`` naming the first row that is not
    finite.
    """
    if features_ND.ndim != 2:
        raise HarnessError(
            f"Features of shape {tuple(features_ND.shape)} were given to the clustering; a matrix [N, D] was "
            "expected. Pool or flatten them to one row per image."
        )
    features = features_ND.detach()
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    # A sum is finite only if every term is: one cheap pass, and a second one only when something may be wrong.
    if bool(features.sum().isfinite()):
        return features
    finite_N = features.isfinite().all(dim=1)
    if not bool(finite_N.all()):
        bad = (~finite_N).nonzero().flatten()
        raise TrainingError(
            f"{bad.numel()} of {features.shape[0]} feature rows are not finite, the first is row {int(bad[0])}; "
            "clustering needs finite numbers. Look for a diverged training (lower the learning rate) or a damaged "
            "image at that row."
        )
    return features
