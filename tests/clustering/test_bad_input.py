"""Inputs that are odd or wrong: a clear error or the documented result, from features to labels."""

import numpy as np
import pytest
import torch

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.errors import HarnessError, SettingsError, TrainingError
from tests.clustering import oracle


def labels(features, *, k1=6, k2=3, eps=0.5, **options):
    return dbscan(k_reciprocal_jaccard(features, k1=k1, k2=k2, **options), eps=eps, min_samples=2)


@pytest.fixture
def features():
    return torch.randn(30, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_errors_that_name_the_row(features, value):
    features[4, 2] = value
    with pytest.raises(TrainingError, match=r"1 of 30 .* row 4"):
        labels(features)


def test_large_values_whose_sum_overflows_are_no_error(features):
    huge = features * (1e38 / features.abs().max())
    assert not huge.abs().sum().isfinite()
    assert torch.equal(nearest_neighbours(huge, 6), nearest_neighbours(features, 6))


def test_tiny_values_keep_their_order(features):
    tiny = features * 2.0**-100
    assert torch.equal(nearest_neighbours(tiny, 6), nearest_neighbours(features, 6))


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_zero_vectors_are_one_cluster_as_far_as_they_are_in_each_others_lists(rows):
    found = labels(torch.zeros(rows, 4), k1=400, k2=2)
    assert found.tolist() == ([0] * rows if rows > 1 else [-1])


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_hundreds_of_duplicates_equal_the_definition(backend):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, generator=generator).round()[torch.randint(3, (240,), generator=generator)]
    assert nearest_neighbours(features, 9, backend=backend).tolist() == oracle.ranking(features.tolist(), 9)
    found = k_reciprocal_jaccard(features[:60], k1=9, k2=3, backend=backend).tocoo()
    filled = np.ones(found.shape)
    filled[found.row, found.col] = found.data
    np.testing.assert_allclose(filled, oracle.jaccard(features[:60].tolist(), 9, 3), atol=1e-5)


def test_k1_beyond_the_rows_and_k2_beyond_k1_are_cut(features):
    whole = k_reciprocal_jaccard(features, k1=30, k2=30)
    assert (k_reciprocal_jaccard(features, k1=99, k2=99) != whole).nnz == 0
    cut = k_reciprocal_jaccard(features, k1=5, k2=5)
    assert (k_reciprocal_jaccard(features, k1=5, k2=40) != cut).nnz == 0


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_have_labels(rows):
    assert labels(torch.arange(rows, dtype=torch.float32)[:, None]).tolist() == [[], [-1], [0, 0]][rows]


def test_no_columns_are_all_duplicates():
    assert labels(torch.zeros(4, 0), k1=4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken(features, dtype):
    given = features.to(dtype)
    wide = given if dtype == torch.float64 else given.float()
    np.testing.assert_array_equal(labels(given), labels(wide))
    assert k_reciprocal_jaccard(given).dtype == (np.float64 if dtype == torch.float64 else np.float32)


@pytest.mark.parametrize("backend", ["compiled", "torch", "faiss"])
def test_rows_that_do_not_lie_next_to_each_other_in_memory_are_taken(features, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    strided = features.T.contiguous().T
    assert not strided.is_contiguous()
    np.testing.assert_array_equal(labels(strided, backend=backend), labels(features))
    np.testing.assert_array_equal(labels(torch.cat([features, features], 1)[:, :5]), labels(features))


@pytest.mark.parametrize("eps", [0.0, -0.5, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_an_error(features, eps):
    with pytest.raises(SettingsError, match="eps"):
        labels(features, eps=eps)


@pytest.mark.parametrize("eps", [1.0, 1.5])
def test_a_radius_of_one_or_more_joins_all_that_share_a_neighbour_and_no_others(eps):
    ones = torch.eye(4).repeat_interleave(3, dim=0)
    assert labels(ones, k1=3, k2=1, eps=eps).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_rank_lists_that_do_not_belong_to_the_features_are_errors(features):
    with pytest.raises(HarnessError, match="one list of row indices per feature"):
        k_reciprocal_encoding(features, np.zeros((29, 3), dtype=np.int64))
    with pytest.raises(HarnessError, match="one list of row indices per feature"):
        k_reciprocal_jaccard(features, ranking_NK=torch.full((30, 3), 30))


def test_the_compiled_backend_is_for_features_on_the_cpu(features, monkeypatch):
    monkeypatch.setattr("harness.clustering.neighbours.checked_features", lambda given: given.to("meta"))
    with pytest.raises(SettingsError, match='features on meta; use "torch"'):
        nearest_neighbours(features, 1, backend="compiled")
