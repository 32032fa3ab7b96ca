"""The steps of the Jaccard distance as tensor operations, against the compiled ones and the definition."""

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from harness.clustering import jaccard_compiled, jaccard_torch
from harness.clustering.compressed import CompressedRows
from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import modality_balanced, plain
from harness.clustering.jaccard import k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import _settled_by_torch, nearest_neighbours, settled
from harness.errors import HarnessError, SettingsError
from harness_dmic.expansion import CameraGroups, InvariantExpansion
from tests.clustering import oracle

ON_AN_ACCELERATOR = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
)
DEVICES = ["cpu", pytest.param("cuda", marks=ON_AN_ACCELERATOR)]
LIMIT = 1 / math.sqrt(3)  # no distance of few equal rows


@st.composite
def clustered(draw):
    """Unit rows [N, 3], N to 200, and lengths of lists: loose groups, or points of a grid with ties and duplicates."""
    rows, seed = draw(st.integers(1, 200)), draw(st.integers(0, 1 << 16))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1 + rows // 8, 3, generator=generator)[torch.arange(rows) % (1 + rows // 8)]
    if draw(st.booleans()):
        features = (2 * features).round() / 2
    else:
        features = features + 0.3 * torch.randn(rows, 3, generator=generator)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return normalize(features.to(dtype), dim=1), draw(st.integers(1, 40)), draw(st.integers(1, 12))


EXPANSIONS = {
    "plain": lambda rows: plain,
    "modality-balanced": lambda rows: modality_balanced(torch.arange(rows) % 2),
    "invariant": lambda rows: InvariantExpansion(CameraGroups.of(torch.arange(rows) % 2, torch.arange(rows) % 6)),
}


def lists(features, k1):
    ranking = nearest_neighbours(features, k1)
    return ranking, min(round(ranking.shape[1] / 2) + 1, ranking.shape[1])


def moved(rows, device):
    return CompressedRows(
        rows.starts_N1.to(device), rows.columns_P.to(device), rows.values_P.to(device), width=rows.width
    )


def assert_equal(found, expected, *, atol):
    assert found.width == expected.width
    assert (found.columns_P.dtype, found.values_P.dtype) == (expected.columns_P.dtype, expected.values_P.dtype)
    assert torch.equal(found.starts_N1.cpu(), expected.starts_N1)
    assert torch.equal(found.columns_P.cpu(), expected.columns_P)
    torch.testing.assert_close(found.values_P.cpu(), expected.values_P, atol=atol, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=60)
@given(case=clustered())
def test_encodings_name_the_same_neighbours_with_weights_equal_up_to_rounding(device, case):
    features, k1, _ = case
    ranking, half = lists(features, k1)
    expected = jaccard_compiled.encoding(features, ranking, half=half)
    found = jaccard_torch.encoding(features.to(device), ranking.to(device), half=half)
    assert found.values_P.device.type == device
    assert_equal(found, expected, atol=1e-6 if features.dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("expansion", EXPANSIONS)
@settings(deadline=None, max_examples=30)
@given(case=clustered())
def test_averages_have_the_same_bits(device, expansion, case):
    features, k1, k2 = case
    ranking, half = lists(features, k1)
    encoding = jaccard_compiled.encoding(features, ranking, half=half)
    averages = CompressedRows.of(EXPANSIONS[expansion](len(features))(ranking.numpy(), k2))
    expected = jaccard_compiled.expanded(encoding, averages)
    assert_equal(jaccard_torch.expanded(moved(encoding, device), moved(averages, device)), expected, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=60)
@given(case=clustered(), limit=st.sampled_from([None, LIMIT]))
def test_distances_of_float32_weights_have_the_same_bits(device, case, limit):
    features, k1, k2 = case
    ranking, half = lists(features, k1)
    encoding = jaccard_compiled.encoding(features, ranking, half=half)
    encoding = jaccard_compiled.expanded(encoding, CompressedRows.of(plain(ranking.numpy(), k2)))
    expected = jaccard_compiled.distance(encoding, max_distance=limit)
    found = jaccard_torch.distance(moved(encoding, device), max_distance=limit)
    assert_equal(found, expected, atol=0 if features.dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("expansion", EXPANSIONS)
@settings(deadline=None, max_examples=25)
@given(case=clustered(), eps=st.sampled_from([0.3, 0.45, 0.6]))
def test_clusters_are_those_of_the_compiled_steps(device, expansion, case, eps):
    features, k1, k2 = case
    options = {"k1": k1, "k2": k2, "expansion": EXPANSIONS[expansion](len(features))}
    expected = k_reciprocal_jaccard(features, steps="compiled", **options)
    assume(not (np.abs(expected.data - eps) < 1e-6).any())
    found = k_reciprocal_jaccard(features.to(device), steps="torch", **options)
    assert (abs(found - expected) > 1e-6).nnz == 0
    np.testing.assert_array_equal(found.indices, expected.indices)
    near = k_reciprocal_jaccard(features.to(device), steps="torch", max_distance=eps, **options)
    assert near.nnz == (expected.data <= eps).sum()
    np.testing.assert_array_equal(dbscan(near, eps=eps), dbscan(expected, eps=eps))


@settings(deadline=None, max_examples=40)
@given(case=clustered(), balanced=st.booleans())
def test_distances_equal_a_loop_over_the_definition(case, balanced):
    features, k1, k2 = case
    features = features[:14].double()
    modality = torch.arange(len(features)) % 2
    # The rank lists are given: near ties of the search are not what is looked at here.
    ranking = oracle.ranking(features.tolist(), min(k1, len(features)))
    expansion = modality_balanced(modality) if balanced else plain
    given_lists = torch.tensor(ranking)
    found = k_reciprocal_jaccard(
        features, k1=k1, k2=k2, expansion=expansion, ranking_NK=given_lists, steps="torch"
    ).tocoo()
    filled = np.ones(found.shape)
    filled[found.row, found.col] = found.data
    expected = oracle.jaccard(features.tolist(), k1, k2, modality.tolist() if balanced else None)
    np.testing.assert_allclose(filled, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entries", [1, 50, 4000])
@pytest.mark.parametrize("limit", [None, 0.5])
def test_blocks_change_no_bit(many_rows, monkeypatch, entries, limit):
    features = many_rows.float()
    whole = k_reciprocal_jaccard(features, k1=10, k2=3, max_distance=limit, steps="torch")
    monkeypatch.setattr(jaccard_torch, "_ENTRIES", entries)
    found = k_reciprocal_jaccard(features, k1=10, k2=3, max_distance=limit, steps="torch")
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(whole, part))


def test_a_running_sum_beyond_the_integers_changes_no_mass():
    """300 equal rows share a mass of 1 each with 299 others: 44,850 times 2^52 in one block."""
    rows = CompressedRows.of(csr_matrix(np.full((300, 3), 1 / 3, dtype=np.float32)))
    found = jaccard_torch.distance(rows)
    assert found.values_P.numel() == 300 * 300
    assert_equal(found, jaccard_compiled.distance(rows), atol=0)


def test_keys_beyond_32_bits_are_told_apart():
    """Rows so many that row × N does not fit, with pairs at both ends."""
    total = 50_000
    columns = np.arange(total) // 2
    rows = CompressedRows.of(csr_matrix((np.ones(total, np.float32), (np.arange(total), columns))))
    found = jaccard_torch.distance(rows)
    assert found.values_P.numel() == 2 * total
    assert_equal(found, jaccard_compiled.distance(rows), atol=0)


def test_encodings_with_more_columns_than_rows(dense):
    rows = CompressedRows.of(csr_matrix([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1]]))
    expected = [[0, 2 / 3, 1], [2 / 3, 0, 1], [1, 1, 0]]
    np.testing.assert_allclose(dense(jaccard_torch.distance(rows).matrix()), expected, atol=1e-12)


def test_rows_without_a_neighbour_or_an_average_are_empty():
    """Rank lists in which rows 2 to 4 are in nobody's list, as those of many duplicates are."""
    ranking = torch.tensor([[0, 1]] * 5)
    encoding = jaccard_torch.encoding(torch.ones(5, 2), ranking, half=2)
    assert encoding.starts_N1.tolist() == [0, 2, 4, 4, 4, 4]
    alone = CompressedRows.of(csr_matrix(np.diag([0, 1, 1, 0, 0.0])))
    assert jaccard_torch.expanded(encoding, alone).starts_N1.tolist() == [0, 0, 2, 2, 2, 2]
    nothing = CompressedRows.of(csr_matrix((5, 5), dtype=np.float32))
    assert jaccard_torch.expanded(nothing, alone).columns_P.numel() == 0
    assert jaccard_torch.distance(nothing).columns_P.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(rows):
    distances = k_reciprocal_jaccard(torch.zeros(rows, 3), steps="torch")
    assert distances.shape == (rows, rows)
    assert distances.nnz == rows * rows
    assert not distances.data.any()


def test_gathered_products_are_inner_products_whatever_the_block(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 20, generator=generator)
    rows, columns = torch.randint(30, (2, 101), generator=generator)
    expected = (features[rows].double() * features[columns].double()).sum(dim=1)
    whole = jaccard_torch.gathered_products(features, rows, columns)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
    for entries in (1, 100, 2020):
        monkeypatch.setattr(jaccard_torch, "_ENTRIES", entries)
        assert torch.equal(jaccard_torch.gathered_products(features, rows, columns), whole)
    assert jaccard_torch.gathered_products(features, rows[:0], columns[:0]).shape == (0,)


@pytest.mark.parametrize("elements", [1, 200, 1 << 20])
def test_candidates_settled_by_tensor_operations_are_in_the_order_of_the_compiled_ones(monkeypatch, elements):
    monkeypatch.setattr("harness.clustering.neighbours._SETTLED_ELEMENTS", elements)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=generator).round() / 2  # many ties, exact in either order of summation
    rows = torch.randperm(60, generator=generator)[:17]
    candidates = torch.stack([torch.randperm(60, generator=generator)[:20] for _ in rows])
    found = _settled_by_torch(features, rows, candidates, 9)
    assert torch.equal(found, settled(features, rows, candidates, 9))
    distances = (features[candidates].double() - features[rows, None]).square().sum(dim=2).tolist()
    for own, listed, away in zip(found.tolist(), candidates.tolist(), distances, strict=True):
        assert own == [row for _, row in sorted(zip(away, listed, strict=True))[:9]]


class Operations(TorchDispatchMode):
    """Counts the operations, and remembers the largest tensor that one of them made."""

    def __init__(self):
        super().__init__()
        self.count = self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        self.count += 1
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return made


def pairs_of(groups, rows):
    """Features in well separated groups, and their rank lists."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(groups, 16, generator=generator), dim=1)
    noise = torch.randn(groups * rows, 16, generator=generator)
    features = normalize(centres.repeat_interleave(rows, 0) + 0.02 * noise, dim=1)
    return features, nearest_neighbours(features, rows)


def watched(features, ranking):
    with Operations() as seen:
        k_reciprocal_jaccard(features, k1=8, k2=3, ranking_NK=ranking, max_distance=0.6, steps="torch")
    return seen


def test_the_number_of_operations_does_not_grow_with_the_rows():
    assert watched(*pairs_of(10, 8)).count == watched(*pairs_of(300, 8)).count > 0


def test_no_tensor_is_larger_than_a_block_or_the_entries_that_are_kept(monkeypatch):
    """3,200 rows share columns in groups of eight; a square array would have ten million elements."""
    features, ranking = pairs_of(400, 8)
    monkeypatch.setattr(jaccard_torch, "_ENTRIES", 1 << 12)
    assert watched(features, ranking).largest <= 3 * features.numel()


def test_pairs_that_are_far_apart_are_not_kept(monkeypatch):
    """All 2,000 rows share one column with little mass; their two million pairs are formed, and left, in blocks."""
    total = 2000
    weights = np.tile(np.array([0.1, 0.9], np.float32), total)
    columns = np.stack([np.zeros(total, int), 1 + np.arange(total)], axis=1).ravel()
    rows = CompressedRows.of(csr_matrix((weights, columns, np.arange(0, 2 * total + 1, 2))))
    monkeypatch.setattr(jaccard_torch, "_ENTRIES", 1 << 14)
    with Operations() as seen:
        found = jaccard_torch.distance(rows, max_distance=0.6)
    assert found.values_P.numel() == total
    assert seen.largest <= (1 << 14) + 1


def test_the_steps_tell_the_rows_done_in_four_passes(many_rows, monkeypatch):
    monkeypatch.setattr(jaccard_torch, "_ENTRIES", 500)
    told = []
    k_reciprocal_jaccard(many_rows, k1=8, steps="torch", progress=lambda *at: told.append(at))
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert {120, 240, 360, 480} <= set(done)
    assert len(done) > 12


def test_steps_that_do_not_exist_and_rank_lists_of_other_rows_are_errors(ten_rows):
    with pytest.raises(SettingsError, match="auto, compiled, torch"):
        k_reciprocal_jaccard(ten_rows, steps="numba")
    with pytest.raises(SettingsError, match='on meta; use "torch"'):
        k_reciprocal_jaccard(torch.empty(3, 2, device="meta"), steps="compiled")
    for wrong in (torch.full((10, 3), 10), torch.full((10, 3), -1), torch.zeros(9, 3, dtype=torch.int64)):
        with pytest.raises(HarnessError, match="10 features"):
            k_reciprocal_jaccard(ten_rows, ranking_NK=wrong, steps="torch")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_gives_the_same_bits_twice_with_deterministic_operations_only():
    features, ranking = pairs_of(300, 8)
    there = features.cuda(), ranking.cuda()
    torch.use_deterministic_algorithms(True)
    try:
        once, twice = (k_reciprocal_jaccard(there[0], k1=8, ranking_NK=there[1]) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(once.data, twice.data)
    assert (abs(once - k_reciprocal_jaccard(features, k1=8, ranking_NK=ranking)) > 1e-6).nnz == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_public_functions_take_features_on_an_accelerator():
    features, ranking = pairs_of(20, 8)
    found = k_reciprocal_encoding(features.cuda(), ranking.numpy())
    assert (abs(found - k_reciprocal_encoding(features, ranking.numpy())) > 1e-6).nnz == 0
    expected = dbscan(k_reciprocal_jaccard(features, k1=8), eps=0.6)
    np.testing.assert_array_equal(dbscan(k_reciprocal_jaccard(features.cuda(), k1=8), eps=0.6), expected)


@pytest.mark.slow
def test_memory_stays_far_below_a_dense_matrix():
    """20,000 rows: one dense float32 matrix alone would take 1.6 GB."""
    script = """
        import resource, torch
        from harness.clustering.dbscan import dbscan
        from harness.clustering.jaccard import k_reciprocal_jaccard
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(1000, 16, generator=generator)
        def labels(rows):
            noise = torch.randn(rows, 16, generator=generator)
            features = torch.nn.functional.normalize(centres[torch.arange(rows) % 1000] + 0.2 * noise, dim=1)
            return dbscan(k_reciprocal_jaccard(features, max_distance=0.6, steps="torch"), eps=0.6)
        labels(1000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = labels(20000)
        print(found.max() + 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    clusters, kibibytes = map(int, run.stdout.split())
    assert 900 <= clusters <= 1100
    assert kibibytes < 400_000
