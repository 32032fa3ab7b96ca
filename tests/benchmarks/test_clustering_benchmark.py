"""The clustering against the dense algorithm of the field, in one process: read the ratios, not the times.

``HARNESS_BENCHMARK_ROWS`` (default 2060) sets the number of images. Larger sizes, memory and growth:
``python -m tests.benchmarks.clustering_scale --help``.
"""

import os

import numpy as np
import pytest
import torch

from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import plain
from harness.clustering.jaccard import expanded, jaccard_distance, k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from tests.benchmarks import clustering_reference as dense
from tests.benchmarks.clustering_data import mixture

ROWS = int(os.environ.get("HARNESS_BENCHMARK_ROWS", "2060"))
pytestmark = [pytest.mark.benchmark(group=f"clustering, {ROWS} images"), pytest.mark.usefixtures("threads")]


@pytest.fixture(params=[1, os.cpu_count() or 1], ids=["one thread", "all threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def features():
    return mixture(ROWS, 512, people=max(2, ROWS // 10))[0]


@pytest.fixture(scope="module")
def ranking(features):
    return nearest_neighbours(features, 30).numpy()


def ours(features):
    return dbscan(k_reciprocal_jaccard(features, max_distance=0.6), eps=0.6)


def field(features):
    return dense.dense_labels(dense.dense_jaccard(features.numpy()), eps=0.6)


def test_labels_by_the_dense_algorithm(benchmark, features):
    pytest.importorskip("faiss")
    np.testing.assert_array_equal(benchmark.pedantic(field, args=(features,), rounds=1), ours(features))


def test_labels(benchmark, features):
    labels = benchmark.pedantic(ours, args=(features,), rounds=3, warmup_rounds=1)
    assert labels.shape == (ROWS,)


@pytest.mark.parametrize("backend", ["compiled", "torch", "faiss"])
def test_nearest_neighbours(benchmark, features, ranking, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    options = {"args": (features, 30), "kwargs": {"backend": backend}, "rounds": 3, "warmup_rounds": 1}
    assert torch.equal(benchmark.pedantic(nearest_neighbours, **options), torch.from_numpy(ranking))


def test_encoding(benchmark, features, ranking):
    found = benchmark.pedantic(k_reciprocal_encoding, args=(features, ranking), rounds=3, warmup_rounds=1)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_distances_and_dbscan(benchmark, features, ranking):
    encoding = expanded(k_reciprocal_encoding(features, ranking), plain(ranking, 6))
    labels = benchmark.pedantic(
        lambda: dbscan(jaccard_distance(encoding, max_distance=0.6), eps=0.6), rounds=3, warmup_rounds=1
    )
    np.testing.assert_array_equal(labels, ours(features))
