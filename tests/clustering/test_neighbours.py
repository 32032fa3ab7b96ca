import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.clustering.chain import chain
from harness.clustering.neighbours import nearest_neighbours
from harness.errors import HarnessError, SettingsError, TrainingError
from tests.clustering import oracle


@pytest.fixture(params=["torch", "faiss"])
def backend(request):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    return request.param


def grid_features(most_rows=14):
    """Rows on a coarse grid: many exact ties and duplicates, no near ties."""
    shape = st.tuples(st.integers(1, most_rows), st.integers(1, 3))
    return arrays.arrays("float32", shape, elements=st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rank_lists_of_the_worked_example(ten_rows, backend, dtype):
    expected = [
        *([0, 3, 1, 2], [1, 3, 0, 2], [2, 0, 1, 3], [3, 1, 0, 2], [4, 6, 5, 8]),
        *([5, 9, 7, 8], [6, 8, 4, 7], [7, 8, 9, 5], [8, 7, 6, 5], [9, 5, 7, 6]),
    ]
    assert nearest_neighbours(ten_rows.to(dtype), 4, backend=backend).tolist() == expected


@pytest.mark.parametrize("name", ["torch", "faiss"])
@settings(deadline=None, max_examples=40)
@given(features=grid_features(), k=st.integers(1, 16), block=st.integers(1, 16))
def test_order_is_by_distance_and_then_by_index(name, features, k, block):
    if name == "faiss":
        pytest.importorskip("faiss")
    found = nearest_neighbours(torch.from_numpy(features), k, backend=name, block=block)
    assert found.tolist() == oracle.ranking(features, k)


def test_ties_at_the_cut_go_to_the_lower_index_among_more_rows_than_were_proposed(backend):
    features = torch.eye(200, 3)[:, [0, 1, 2]]
    features[3:] = 0
    features[100] = torch.tensor([0.0, 0.0, 0.25])
    found = nearest_neighbours(features, 5, backend=backend)
    zeros = [i for i in range(3, 200) if i != 100]
    assert all(found[i].tolist() == zeros[:5] for i in zeros)
    assert found[100].tolist() == [100, *zeros[:4]]


def test_more_ties_than_are_compared_exactly_still_go_to_the_lower_index(backend):
    features = torch.zeros(700, 2)
    features[699] = 1.0
    features[690:693] = 1.0
    found = nearest_neighbours(features, 5, backend=backend)
    assert found[5].tolist() == [0, 1, 2, 3, 4]
    assert found[699].tolist() == [690, 691, 692, 699, 0]


def test_nearly_equal_features_are_told_apart(backend):
    """Differences far below the rounding of a float32 inner product of unit rows."""
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(1, 8, generator=generator, dtype=torch.float64), dim=1)
    features = base + 1e-7 * torch.randn(60, 8, generator=generator, dtype=torch.float64)
    assert nearest_neighbours(features, 7, backend=backend).tolist() == oracle.ranking(features.tolist(), 7)


def test_backends_blocks_and_threads_agree_on_random_features():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(500, 24, generator=generator)
    features[250:300] = features[:50]
    reference = nearest_neighbours(features, 20, backend="torch")
    assert torch.equal(nearest_neighbours(features, 20, backend="auto"), reference)
    assert torch.equal(nearest_neighbours(features, 20, backend="torch", block=37), reference)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(nearest_neighbours(features, 20, backend="torch"), reference)
    finally:
        torch.set_num_threads(threads)


def test_reduced_precision_products_do_not_change_the_order():
    features = torch.randn(80, 16, generator=torch.Generator().manual_seed(2))
    reference = nearest_neighbours(features, 9, backend="torch")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest_neighbours(features, 9, backend="torch"), reference)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(rows, backend):
    features = torch.arange(rows, dtype=torch.float32)[:, None]
    expected = torch.tensor([[0, 1], [1, 0]])[:rows, :rows] if rows else torch.empty(0, 0, dtype=torch.int64)
    assert torch.equal(nearest_neighbours(features, 5, backend=backend), expected)


def test_half_precision_is_accepted_and_the_input_is_left_alone(ten_rows, backend):
    half = ten_rows.half().requires_grad_()
    before = half.detach().clone()
    found = nearest_neighbours(half, 3, backend=backend)
    assert torch.equal(found, nearest_neighbours(before.float(), 3, backend=backend))
    assert torch.equal(half, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_row(value, backend):
    features = torch.zeros(5, 2)
    features[3, 1] = features[4, 0] = value
    with pytest.raises(TrainingError, match=r"2 of 5 .* first is row 3"):
        nearest_neighbours(features, 2, backend=backend)


def test_inputs_of_the_wrong_kind_are_errors(ten_rows):
    with pytest.raises(HarnessError, match=r"\[N, D\]"):
        nearest_neighbours(ten_rows[0], 2)
    with pytest.raises(SettingsError, match="at least 1"):
        nearest_neighbours(ten_rows, 0)
    with pytest.raises(SettingsError, match="auto, compiled, faiss, torch"):
        nearest_neighbours(ten_rows, 2, backend="annoy")


def test_without_faiss_auto_uses_torch_and_an_explicit_faiss_is_an_error(ten_rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert nearest_neighbours(ten_rows, 2).shape == (10, 2)
    with pytest.raises(SettingsError, match='backend "auto"'):
        nearest_neighbours(ten_rows, 2, backend="faiss")


def test_a_chain_holds_every_row_once_and_follows_the_lists():
    lists_NK = np.array([[0, 3], [1, 0], [2, 2], [3, 1]])
    starts_N = 2 * np.arange(4)
    assert chain(starts_N, starts_N + 2, lists_NK.ravel()).tolist() == [0, 3, 1, 2]
    random_NK = np.random.default_rng(0).integers(0, 300, (300, 4))
    starts_N = 4 * np.arange(300)
    assert sorted(chain(starts_N, starts_N + 4, random_NK.ravel()).tolist()) == list(range(300))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [2.0**-100, 1.0, 2.0**100])
def test_near_ties_are_settled_exactly_at_any_scale(dtype, factor):
    """Many pairs of distances that float32 cannot tell apart, beside ones that it can."""
    generator = torch.Generator().manual_seed(8)
    rows = torch.randn(20, 6, generator=generator, dtype=torch.float64).repeat_interleave(6, dim=0)
    rows = (rows + 3e-7 * torch.randn(120, 6, generator=generator, dtype=torch.float64) + 5) * factor
    features = rows.to(dtype)
    found = nearest_neighbours(features, 11, backend="compiled")
    assert found.tolist() == oracle.ranking(features.tolist(), 11)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_gives_the_same_neighbours():
    features = torch.randn(3000, 64, generator=torch.Generator().manual_seed(3))
    features[100:200] = features[:100]
    found = nearest_neighbours(features.cuda(), 30)
    assert found.is_cuda
    assert torch.equal(found.cpu(), nearest_neighbours(features, 30))
