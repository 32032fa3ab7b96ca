"""Labels and distances against the dense algorithm of the field, on random, tied and duplicated rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from tests.benchmarks.clustering_data import mixture
from tests.benchmarks.clustering_reference import dense_jaccard, dense_labels


def exact_lists(features, k):
    """Rank lists by squared distances in float64 and then by index."""
    rows = features.astype(np.float64)
    distances = np.stack([((rows - row) ** 2).sum(axis=1) for row in rows])
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def drawn(kind, rows, size, seed):
    rng = np.random.default_rng(seed)
    if kind == "grid":
        return rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=(rows, size)).astype(np.float32)
    if kind == "mixture":
        return mixture(rows, max(2, size), people=max(1, rows // 20), seed=seed)[0].numpy()
    features = rng.normal(size=(rows, size)).astype(np.float32)
    return features[rng.integers(0, max(1, rows // 3), rows)]


# Radii that no ratio of small integers meets: at such a distance rounding alone would decide.
RADII = [0.2717, 0.4533, 0.6013, 0.7919]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(["grid", "mixture", "duplicates"]),
    rows=st.integers(1, 400),
    size=st.integers(1, 24),
    seed=st.integers(0, 1_000_000),
    k1=st.integers(1, 45),
    k2=st.integers(1, 50),
    eps=st.sampled_from(RADII),
    min_samples=st.integers(1, 8),
    backend=st.sampled_from(["compiled", "torch", "faiss"]),
)
def test_labels_and_distances_equal_the_dense_ones(kind, rows, size, seed, k1, k2, eps, min_samples, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    features = drawn(kind, rows, size, seed)
    expected = dense_jaccard(features, k1=k1, k2=k2, lists=exact_lists(features, k1))
    np.fill_diagonal(expected, 0)
    found = k_reciprocal_jaccard(torch.from_numpy(features), k1=k1, k2=k2, backend=backend)
    filled = np.ones(found.shape)
    coordinates = found.tocoo()
    filled[coordinates.row, coordinates.col] = coordinates.data
    np.testing.assert_allclose(filled, expected, rtol=0, atol=1e-5)
    labels = dense_labels(expected, eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(dbscan(found, eps=eps, min_samples=min_samples), labels)
    near = k_reciprocal_jaccard(torch.from_numpy(features), k1=k1, k2=k2, backend=backend, max_distance=eps)
    np.testing.assert_array_equal(dbscan(near, eps=eps, min_samples=min_samples), labels)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_equal_the_dense_ones_on_ten_thousand_rows(seed):
    pytest.importorskip("faiss")
    features, _ = mixture(10_000, 128, people=300, seed=seed)
    expected = dense_labels(dense_jaccard(features.numpy()), eps=0.6)
    labels = dbscan(k_reciprocal_jaccard(features, max_distance=0.6), eps=0.6)
    np.testing.assert_array_equal(labels, expected)
    assert 0.02 < (labels < 0).mean() < 0.4


@pytest.fixture(scope="module")
def two_thousand():
    features, _ = mixture(2000, 96, people=70, seed=5)
    features[1500:1600] = features[:100]
    features[1600:1650] = 0
    return features


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("backend", "grade"),
    [("compiled", "int8"), ("compiled", "bfloat16"), ("compiled", "float32"), ("torch", None), ("faiss", None)],
)
def test_every_backend_and_number_of_threads_gives_the_same_bits(two_thousand, threads, backend, grade):
    if backend == "faiss":
        pytest.importorskip("faiss")
    reference = k_reciprocal_jaccard(two_thousand)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        ranking = nearest_neighbours(two_thousand, 30, backend=backend, grade=grade)
        found = k_reciprocal_jaccard(two_thousand, ranking_NK=ranking)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found.indptr, reference.indptr)
    np.testing.assert_array_equal(found.indices, reference.indices)
    np.testing.assert_array_equal(found.data, reference.data)
