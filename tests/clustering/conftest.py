"""The worked inputs of the Jaccard checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def ten_rows():
    """Ten unit rows in three loose groups, float64 [10, 4]."""
    group = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])[:, None]
    i, j = np.arange(10)[:, None], np.arange(4)[None, :]
    rows = np.cos(2.1 * group * (j + 1)) + 0.35 * np.sin(1.7 * i * (j + 2) + 0.3)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture
def many_rows():
    """120 unit rows in twenty groups of six, float64 [120, 16]."""
    i, j = np.arange(120)[:, None], np.arange(16)[None, :]
    rows = np.cos(0.37 * (i // 6) * (j + 1) + 0.2) + 0.45 * np.sin(1.9 * i * (j + 1) + 0.7)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture
def dense():
    """A function that fills in the distance of 1 of the pairs that a sparse result does not store."""

    def fill(sparse):
        result = np.ones(sparse.shape)
        coordinates = sparse.tocoo()
        result[coordinates.row, coordinates.col] = coordinates.data
        return result

    return fill


@pytest.fixture
def angles():
    """A function from degrees to unit rows, float64 [N, 2]."""

    def rows(*degrees):
        radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    return rows
