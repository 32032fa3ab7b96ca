import threading

import numpy as np
import pytest
import torch

from harness.clustering.approximate import approximate_neighbours
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.clustering.threads import over_rows


@pytest.fixture
def features():
    return torch.randn(700, 4, generator=torch.Generator().manual_seed(0))


def is_steady(told, total):
    done = [one for one, _ in told]
    return done == sorted(done) and done[-1] == total and {whole for _, whole in told} == {total}


@pytest.mark.parametrize("backend", ["compiled", "torch", "faiss"])
def test_the_neighbour_search_tells_the_rows_done(features, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    told = []
    nearest_neighbours(features, 5, backend=backend, block=64, progress=lambda *at: told.append(at))
    assert is_steady(told, 700)
    assert len(told) >= 10


def test_the_jaccard_distance_tells_four_passes_over_the_rows(features):
    told = []
    k_reciprocal_jaccard(features, progress=lambda *at: told.append(at))
    assert is_steady(told, 4 * 700)
    assert {700, 1400, 2100, 2800} <= {done for done, _ in told}


def test_the_approximate_search_tells_the_rows_done(features):
    pytest.importorskip("faiss")
    told = []
    approximate_neighbours(features, 5, block=100, progress=lambda *at: told.append(at))
    assert is_steady(told, 700)


def test_progress_changes_no_result(features):
    silent = k_reciprocal_jaccard(features)
    np.testing.assert_array_equal(k_reciprocal_jaccard(features, progress=lambda *at: None).data, silent.data)


@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_cover_all_rows_once_and_in_order(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = over_rows(lambda first, last, offset: (first + offset, last), 1000, 5, step=300)
    finally:
        torch.set_num_threads(before)
    assert found == [(5, 300), (305, 600), (605, 900), (905, 1000)]


def test_an_error_in_a_range_reaches_the_caller():
    def failing(first, last):
        raise ValueError(f"rows {first} to {last}")

    with pytest.raises(ValueError, match="rows 0 to 10"):
        over_rows(failing, 10)


def test_several_python_threads_may_cluster_at_once(features):
    reference, found = k_reciprocal_jaccard(features), []
    workers = [threading.Thread(target=lambda: found.append(k_reciprocal_jaccard(features))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3
    for one in found:
        np.testing.assert_array_equal(one.data, reference.data)
