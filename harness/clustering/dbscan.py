"""DBSCAN on a sparse graph of distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN

from harness.errors import HarnessError, SettingsError


def dbscan(distances_NN: csr_matrix, *, eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    """Cluster labels from pairwise distances.

    ``distances_NN`` CSR [N, N], symmetric: a stored zero is a distance of 0; a pair that is not stored is
    never a neighbour, whatever ``eps``. A point is always its own neighbour. ``eps``: the radius, inclusive.
    ``min_samples``: neighbours, itself included, that make a core point.

    Returns int64 [N]: clusters from 0 in the order of their first core point; a border point belongs to the
    first cluster that reaches it; −1 = outlier. Source: scikit-learn's DBSCAN (baseline.md 4.2).

    Raises ``SettingsError`` for eps ≤ 0 or min_samples < 1, ``HarnessError`` for negative or missing
    distances.
    """
    if not 0 < eps < np.inf:
        raise SettingsError(f"eps = {eps} was given to DBSCAN; a radius above 0 was expected.")
    if min_samples < 1:
        raise SettingsError(f"min_samples = {min_samples} was given to DBSCAN; at least 1 was expected.")
    if distances_NN.shape[0] != distances_NN.shape[1]:
        raise HarnessError(f"DBSCAN was given distances of shape {distances_NN.shape}; a square matrix was expected.")
    if not bool((distances_NN.data >= 0).all()):
        raise HarnessError("DBSCAN was given negative or NaN distances; check how they were computed.")
    if distances_NN.shape[0] == 0:
        return np.empty(0, dtype=np.int64)
    model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    return model.fit(_graph_within(distances_NN, eps)).labels_.astype(np.int64)


def _graph_within(distances_NN: csr_matrix, eps: float) -> csr_matrix:
    """Only the pairs within ``eps``, and each point at distance 0 from itself."""
    total = distances_NN.shape[0]
    rows = np.repeat(np.arange(total), np.diff(distances_NN.indptr))
    kept = (distances_NN.data <= eps) & (rows != distances_NN.indices)
    own = np.arange(total)
    positions = np.concatenate([rows[kept], own]), np.concatenate([distances_NN.indices[kept], own])
    entries = np.concatenate([distances_NN.data[kept], np.zeros(total, dtype=distances_NN.dtype)])
    return csr_matrix((entries, positions), shape=distances_NN.shape)
