import sys

import pytest
import torch

from harness.clustering.approximate import approximate_neighbours
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.errors import SettingsError

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def features():
    return torch.randn(900, 12, generator=torch.Generator().manual_seed(0))


def test_all_cells_together_give_the_exact_lists(features):
    found = approximate_neighbours(features, 7, cells=12, probes=12)
    assert torch.equal(found.ranking_NK, nearest_neighbours(features, 7))
    assert (found.recall, found.approximate, found.cells, found.probes) == (1.0, True, 12, 12)


def test_the_recall_is_the_share_of_true_neighbours_found(features):
    found = approximate_neighbours(features, 7, cells=30, probes=2, measured_rows=900)
    exact = nearest_neighbours(features, 7).tolist()
    hits = sum(len(set(own) & set(true)) for own, true in zip(found.ranking_NK.tolist(), exact, strict=True))
    assert found.recall == pytest.approx(hits / (900 * 7))
    assert 0.2 < found.recall < 1
    assert found.measured_rows == 900


def test_more_probes_find_more(features):
    recalls = [approximate_neighbours(features, 7, cells=30, probes=probes).recall for probes in (1, 4, 30)]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1] == 1


def test_rows_with_too_few_candidates_are_searched_exactly(features):
    found = approximate_neighbours(features[:60], 40, cells=20, probes=1)
    assert all(len(set(own)) == 40 for own in found.ranking_NK.tolist())
    assert found.recall > 0.9


def test_the_lists_can_be_handed_to_the_jaccard_distance(features):
    found = approximate_neighbours(features, 10, cells=9, probes=9)
    handed = k_reciprocal_jaccard(features, k1=10, ranking_NK=found.ranking_NK)
    assert (handed != k_reciprocal_jaccard(features, k1=10)).nnz == 0


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(rows):
    found = approximate_neighbours(torch.arange(rows, dtype=torch.float32)[:, None], 3)
    assert found.ranking_NK.shape == (rows, min(3, rows))
    assert found.recall == 1.0


def test_what_cannot_be_used_is_an_error(features, monkeypatch):
    with pytest.raises(SettingsError, match="at least 1"):
        approximate_neighbours(features, 3, probes=0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingsError, match="cannot be imported"):
        approximate_neighbours(features, 3)
