"""Checks of values at the seam that no run of the toy method reaches."""

from __future__ import annotations

import pytest
import torch

from harness.engine.seam import check_features
from harness.errors import TrainingError


def test_features_that_are_not_finite_are_counted_whatever_their_sum() -> None:
    features = torch.ones(6, 4)
    features[1, 2] = float("nan")
    features[3, :2] = torch.tensor([float("inf"), -float("inf")])
    features[4, 0] = -float("inf")
    with pytest.raises(TrainingError, match="NaN or infinite for 3 of 6 images"):
        check_features({"main": torch.ones(6, 4), "deep": features}, encoder="online", view="plain")


def test_large_finite_features_pass_though_their_sum_overflows() -> None:
    check_features({"main": torch.full((2, 4), 3e38)}, encoder="online", view="plain")
