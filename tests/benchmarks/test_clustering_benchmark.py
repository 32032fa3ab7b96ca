"""The sparse Jaccard distance against a dense one, in one process: read the ratio, not the times."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.nn.functional import normalize

from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import plain
from harness.clustering.jaccard import jaccard_distance, k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours

pytestmark = pytest.mark.benchmark(group="k-reciprocal Jaccard, N = 1500")


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, 256, generator=generator)
    return normalize(centres[torch.arange(1500) % 60] + torch.randn(1500, 256, generator=generator), dim=1)


def dense_jaccard(features_ND, *, k1=30, k2=6):
    """The usual dense form: full distance matrix, loops over rows, N x N encodings."""
    total = len(features_ND)
    similarity = (features_ND @ features_ND.T).numpy()
    lists = np.argsort(-similarity, axis=1, kind="stable")[:, :k1]
    full, half = (mutual(lists, width) for width in (k1 + 1, round(k1 / 2) + 1))
    encoding = np.zeros((total, total), dtype=np.float32)
    for i, own in enumerate(full):
        near = [half[j] for j in own if 3 * np.isin(half[j], own).sum() > 2 * len(half[j])]
        members = np.unique(np.concatenate([own, *near]))
        weights = np.exp(-(2 - 2 * similarity[i, members]))
        encoding[i, members] = weights / weights.sum()
    encoding = np.stack([encoding[own[:k2]].mean(axis=0) for own in lists])
    columns = [np.flatnonzero(encoding[:, l]) for l in range(total)]
    result = np.empty_like(encoding)
    for i, row in enumerate(encoding):
        shared = np.zeros(total, dtype=np.float32)
        for l in np.flatnonzero(row):
            shared[columns[l]] += np.minimum(row[l], encoding[columns[l], l])
        result[i] = np.maximum(1 - shared / (2 - shared), 0)
    return result


def mutual(lists, width):
    return [np.array([j for j in own[:width] if i in lists[j][:width]]) for i, own in enumerate(lists)]


def test_dense_reference(benchmark, features):
    found = benchmark.pedantic(dense_jaccard, args=(features,), rounds=1)
    sparse = k_reciprocal_jaccard(features).tocoo()
    filled = np.ones(sparse.shape)
    filled[sparse.row, sparse.col] = sparse.data
    np.testing.assert_allclose(filled, found, atol=2e-5)


def test_sparse_from_features(benchmark, features):
    assert benchmark.pedantic(k_reciprocal_jaccard, args=(features,), rounds=3).shape == (1500, 1500)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_nearest_neighbours(benchmark, features, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    assert benchmark.pedantic(nearest_neighbours, args=(features, 30), kwargs={"backend": backend}, rounds=3).shape == (
        1500,
        30,
    )


def test_encoding(benchmark, features):
    ranking = nearest_neighbours(features, 30).numpy()
    assert isinstance(benchmark.pedantic(k_reciprocal_encoding, args=(features, ranking), rounds=3), csr_matrix)


def test_shared_mass_and_dbscan(benchmark, features):
    ranking = nearest_neighbours(features, 30).numpy()
    encoding = (plain(ranking, 6).astype(np.float32) @ k_reciprocal_encoding(features, ranking)).tocsr()
    labels = benchmark.pedantic(lambda: dbscan(jaccard_distance(encoding), eps=0.6), rounds=3)
    assert labels.max() + 1 == 60
