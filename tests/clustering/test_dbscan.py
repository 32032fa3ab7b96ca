import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN

from harness.clustering.dbscan import dbscan
from harness.errors import HarnessError, SettingsError


def sparse(dense):
    """A CSR matrix of the entries below 1, zeros stored."""
    rows, columns = np.nonzero(dense < 1)
    return csr_matrix((dense[rows, columns], (rows, columns)), shape=dense.shape)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 0.8]), st.integers(1, 5))
def test_labels_equal_those_of_the_dense_matrix(size, seed, eps, min_samples):
    distances = np.random.default_rng(seed).choice([0.0, 0.1, 0.5, 0.8, 1.0, 1.0, 1.0], size=(size, size))
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances).labels_
    found = dbscan(sparse(distances), eps=eps, min_samples=min_samples)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_stored_zeros_join_points_and_missing_pairs_do_not():
    distances = np.ones((4, 4))
    distances[:2, :2] = 0
    distances[2, 2] = distances[3, 3] = 0
    assert dbscan(sparse(distances), eps=0.5, min_samples=2).tolist() == [0, 0, -1, -1]


def test_a_point_is_its_own_neighbour_even_if_the_diagonal_is_not_stored():
    distances = csr_matrix(([0.2, 0.2], ([0, 1], [1, 0])), shape=(3, 3))
    assert dbscan(distances, eps=0.5, min_samples=2).tolist() == [0, 0, -1]
    assert dbscan(distances, eps=0.1, min_samples=1).tolist() == [0, 1, 2]


def test_the_radius_is_inclusive_and_the_input_is_left_alone():
    distances = csr_matrix(([0.5, 0.5], ([0, 1], [1, 0])), shape=(2, 2))
    assert dbscan(distances, eps=0.5, min_samples=2).tolist() == [0, 0]
    assert dbscan(distances, eps=0.49, min_samples=2).tolist() == [-1, -1]
    assert distances.nnz == 2


def test_no_points_and_no_pairs():
    assert dbscan(csr_matrix((0, 0)), eps=0.5).shape == (0,)
    assert dbscan(csr_matrix((3, 3)), eps=0.5).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("eps", [0, -0.1, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_an_error(eps):
    with pytest.raises(SettingsError, match="eps"):
        dbscan(csr_matrix((3, 3)), eps=eps)


def test_other_inputs_that_cannot_be_used_are_errors():
    with pytest.raises(SettingsError, match="min_samples"):
        dbscan(csr_matrix((3, 3)), eps=0.5, min_samples=0)
    with pytest.raises(HarnessError, match="square"):
        dbscan(csr_matrix((3, 4)), eps=0.5)
    with pytest.raises(HarnessError, match="negative or NaN"):
        dbscan(csr_matrix([[0.0, -1.0], [-1.0, 0.0]]), eps=0.5)
    with pytest.raises(HarnessError, match="negative or NaN"):
        dbscan(csr_matrix([[0.0, np.nan], [np.nan, 0.0]]), eps=0.5)
