import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from harness.errors import HarnessError
from harness.memory_updates import (
    ReleasedSimilarity,
    _Groups,
    hard_update,
    hard_update_,
    hybrid_update,
    hybrid_update_,
    momentum_update,
    momentum_update_,
    multi_centre_update,
    multi_centre_update_,
    random_replacement,
)

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
LABELS_SECOND = torch.tensor([1, 1, 0, 0, 2, 2])
THIRD_ROW = [0.235654, -0.498057, 0.617904, -0.560893]


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def bank(dtype):
    k, j = torch.arange(3.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    return normalize(torch.cos(1.3 * k * (j + 1) + 0.2), dim=1).to(dtype)


@pytest.fixture
def raw():
    b, j = torch.arange(6.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    return torch.sin(0.7 * b * (j + 1) + 0.5 * (j + 1))


@pytest.fixture
def queries(raw, dtype):
    return normalize(raw, dim=1).to(dtype)


@pytest.fixture
def second_queries(raw, dtype):
    return normalize(raw.flip(1), dim=1).to(dtype)


def test_the_worked_similarities_and_losses(bank, queries):
    close((queries @ bank.T)[0], [0.971466, -0.356501, -0.205816])
    assert float(cross_entropy(queries @ bank.T / 0.2, LABELS)) == pytest.approx(2.479860, abs=1e-5)
    assert float(cross_entropy(queries @ bank.T / 0.05, LABELS)) == pytest.approx(8.683582, abs=1e-5)


@pytest.mark.parametrize(
    ("momentum", "expected"),
    [
        (
            0.1,
            [[-0.508656, 0.722657, -0.445511, -0.143373], [-0.124093, 0.425373, -0.603804, 0.66263], THIRD_ROW],
        ),
        (
            0.2,
            [
                [-0.44111, 0.746363, -0.497015, -0.036603],
                [-0.026083, 0.450388, -0.671875, 0.587413],
                [0.127521, -0.439259, 0.625272, -0.632317],
            ],
        ),
    ],
)
def test_momentum_update_of_the_worked_batch(bank, queries, momentum, expected):
    close(momentum_update(bank, queries, LABELS, momentum=momentum), expected)


def test_the_order_of_the_batch_matters_to_the_momentum_update(bank, queries):
    found = momentum_update(bank, queries.flip(0), LABELS.flip(0), momentum=0.1)
    expected = [[0.346507, 0.46299, 0.545306, 0.606807], [0.583455, 0.469895, -0.352886, -0.560581], THIRD_ROW]
    close(found, expected)


@pytest.mark.parametrize(
    ("momentum", "expected"),
    [
        (
            0.1,
            [[-0.499117, 0.782981, -0.337416, -0.154833], [0.623438, 0.360972, -0.34549, -0.601383], THIRD_ROW],
        ),
        (
            0.2,
            [
                [-0.430464, 0.857749, -0.267992, -0.084538],
                [0.661391, 0.265258, -0.430639, -0.553851],
                [0.127521, -0.439259, 0.625272, -0.632317],
            ],
        ),
    ],
)
def test_hard_update_of_the_worked_batch(bank, queries, momentum, expected):
    close(hard_update(bank, queries, LABELS, momentum=momentum), expected)


def test_hybrid_update_of_the_worked_batch(bank, queries):
    centroid, hard = hybrid_update(bank, bank, queries, LABELS, momentum=0.1)
    close(centroid, [[0.32001, 0.631879, 0.020541, 0.70562], [0.335589, 0.524165, -0.765461, 0.163401], THIRD_ROW])
    torch.testing.assert_close(hard, hard_update(bank, queries, LABELS, momentum=0.1))


def test_hybrid_update_chooses_the_hardest_by_the_centroid_before_the_update():
    row = torch.tensor([[1.0, 0.0]])
    batch = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]])
    centroid, hard = hybrid_update(row, row, batch, torch.zeros(4, dtype=torch.int64), momentum=0.1)
    close(centroid, [[0.803947, 0.594701]])
    close(hard, [[0.664364, 0.747409]])


def test_hybrid_update_of_two_banks_that_differ():
    centroid = torch.eye(2)
    hard = torch.tensor([[0.6, 0.8], [-0.6, 0.8]])
    batch = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    centroid, hard = hybrid_update(centroid, hard, batch, torch.tensor([0, 0, 0, 1]), momentum=0.1)
    close(centroid, [[0.890043, 0.455876], [0.0, 1.0]])
    close(hard, [[0.6, 0.8], [-0.061110, 0.998131]])


@pytest.mark.parametrize(
    ("momentum", "after_one", "after_two"),
    [
        (0.1, [0.835171, 0.549991], [0.626849, 0.779141]),
        (0.2, [0.868243, 0.496139], [0.662413, 0.749139]),
        (0.0, [0.8, 0.6], [0.6, 0.8]),
    ],
)
def test_momentum_update_of_one_row_by_two_queries(momentum, after_one, after_two):
    row, batch = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    labels = torch.zeros(2, dtype=torch.int64)
    close(momentum_update(row, batch[:1], labels[:1], momentum=momentum), [after_one])
    close(momentum_update(row, batch, labels, momentum=momentum), [after_two])


def a_batch():
    return st.tuples(st.integers(1, 5), st.integers(0, 20), st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.9]))


def drawn(rows, size, seed):
    generator = torch.Generator().manual_seed(seed)
    bank = normalize(torch.randn(rows, 3, generator=generator, dtype=torch.float64), dim=1)
    queries = normalize(torch.randn(size, 3, generator=generator, dtype=torch.float64), dim=1)
    return bank, queries, torch.randint(-1, rows, (size,), generator=generator)


def unit(row):
    return row / np.linalg.norm(row)


@settings(deadline=None, max_examples=50)
@given(a_batch())
def test_momentum_update_equals_a_loop_over_the_batch(case):
    rows, size, seed, momentum = case
    bank, queries, labels = drawn(rows, size, seed)
    expected = bank.numpy().copy()
    for query, label in zip(queries.numpy(), labels.tolist(), strict=True):
        if label >= 0:
            expected[label] = unit(momentum * expected[label] + (1 - momentum) * query)
    np.testing.assert_allclose(momentum_update(bank, queries, labels, momentum=momentum).numpy(), expected, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(a_batch())
def test_hard_and_hybrid_updates_equal_a_loop_over_the_clusters(case):
    rows, size, seed, momentum = case
    bank, queries, labels = drawn(rows, size, seed)
    other = bank.flip(0)
    hard, centroid, second = bank.numpy().copy(), bank.numpy().copy(), other.numpy().copy()
    for k in range(rows):
        group = queries[labels == k].numpy()
        if len(group):
            hardest = group[np.argmin(group @ bank[k].numpy())]
            hard[k] = unit(momentum * hard[k] + (1 - momentum) * hardest)
            centroid[k] = unit(momentum * centroid[k] + (1 - momentum) * group.mean(axis=0))
            second[k] = unit(momentum * second[k] + (1 - momentum) * hardest)
    np.testing.assert_allclose(hard_update(bank, queries, labels, momentum=momentum).numpy(), hard, atol=1e-12)
    found = hybrid_update(bank, other, queries, labels, momentum=momentum)
    np.testing.assert_allclose(found[0].numpy(), centroid, atol=1e-12)
    np.testing.assert_allclose(found[1].numpy(), second, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(a_batch(), st.integers(1, 4))
def test_multi_centre_update_equals_a_loop_over_the_batch(case, centres):
    rows, size, seed, momentum = case
    bank, queries, labels = drawn(rows * centres, size, seed)
    bank, labels = bank.reshape(rows, centres, 3), torch.where(labels >= rows, -1, labels)
    expected = bank.numpy().copy()
    for query, label in zip(queries.numpy(), labels.tolist(), strict=True):
        if label >= 0:
            nearest = int(np.argmax(expected[label] @ query))
            expected[label, nearest] = unit(momentum * expected[label, nearest] + (1 - momentum) * query)
    found = multi_centre_update(bank, queries, labels, momentum=momentum)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(a_batch(), st.integers(1, 25))
def test_hybrid_update_by_several_hard_queries_equals_a_loop_over_the_clusters(case, hardest):
    rows, size, seed, momentum = case
    bank, queries, labels = drawn(rows, size, seed)
    expected = bank.flip(0).numpy().copy()
    for k in range(rows):
        group = queries[labels == k].numpy()
        if len(group):
            order = np.argsort(group @ bank[k].numpy(), kind="stable")[:hardest]
            expected[k] = unit(momentum * expected[k] + (1 - momentum) * group[order].mean(axis=0))
    found = hybrid_update(bank, bank.flip(0), queries, labels, momentum=momentum, hardest=hardest)
    np.testing.assert_allclose(found[1].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_float32_updates_at_full_size_equal_float64_loops(seed, momentum):
    generator = torch.Generator().manual_seed(seed)
    bank = normalize(torch.randn(20, 2048, generator=generator), dim=1)
    queries = normalize(torch.randn(256, 2048, generator=generator), dim=1)
    labels = torch.randint(-1, 12, (256,), generator=generator)
    followed, centroid, hard = (bank.double().numpy().copy() for _ in range(3))
    for query, label in zip(queries.double().numpy(), labels.tolist(), strict=True):
        if label >= 0:
            followed[label] = unit(momentum * followed[label] + (1 - momentum) * query)
    for k in range(12):
        group = queries[labels == k].double().numpy()
        farthest = group[np.argmin(group @ bank[k].double().numpy())]
        centroid[k] = unit(momentum * centroid[k] + (1 - momentum) * group.mean(axis=0))
        hard[k] = unit(momentum * hard[k] + (1 - momentum) * farthest)
    found = hybrid_update(bank, bank, queries, labels, momentum=momentum)
    for left, right in (
        (momentum_update(bank, queries, labels, momentum=momentum), followed),
        (hard_update(bank, queries, labels, momentum=momentum), hard),
        (found[0], centroid),
        (found[1], hard),
    ):
        np.testing.assert_allclose(left.numpy(), right, atol=1e-6)


def test_an_instance_memory_is_updated_by_its_rows_with_queries_of_any_length():
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    raw = torch.tensor([[0.0, 10.0]])
    close(momentum_update_(rows, raw, torch.tensor([1]), momentum=0.9), [[0, 1], [0.668965, 0.743294], [0, 1]])
    rows[1] = torch.tensor([1.0, 0.0])
    close(momentum_update_(rows, raw / 10, torch.tensor([1]), momentum=0.9)[1], [0.993884, 0.110432])


IN_PLACE = {
    "momentum": (momentum_update_, momentum_update, 1),
    "hard": (hard_update_, hard_update, 1),
    "multi-centre": (multi_centre_update_, multi_centre_update, 1),
    "hybrid": (hybrid_update_, hybrid_update, 2),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_update_in_place_writes_what_the_other_returns(name, bank, queries):
    in_place, copying, count = IN_PLACE[name]
    rows = bank[:, None] if name == "multi-centre" else bank
    banks = [rows.clone() for _ in range(count)]
    expected = copying(*([rows] * count), queries, LABELS, momentum=0.3)
    returned = in_place(*banks, queries, LABELS, momentum=0.3)
    assert returned is (None if count == 2 else banks[0])
    for found, wanted in zip(banks, expected if count == 2 else [expected], strict=True):
        assert torch.equal(found, wanted)


def of_groups(bank, other, queries, labels, *, momentum, hardest):
    """The updates as they are made off the CPU: hard bank, hybrid's centroid bank, hybrid's hard bank."""
    hard, centroid, second, groups = bank.clone(), bank.clone(), other.clone(), _Groups(labels)
    groups.move(hard, groups.farthest_means(queries, hard, count=1), momentum=momentum)
    groups.move(second, groups.farthest_means(queries, bank, count=hardest), momentum=momentum)
    groups.move(centroid, groups.means(queries), momentum=momentum)
    return hard, centroid, second


@settings(deadline=None, max_examples=80)
@given(a_batch(), st.integers(1, 4))
def test_the_form_without_waiting_for_the_device_equals_the_kernels(case, hardest):
    rows, size, seed, momentum = case
    bank, queries, labels = drawn(rows, max(1, size), seed)
    found = of_groups(bank, bank.flip(0), queries, labels, momentum=momentum, hardest=hardest)
    hybrid = hybrid_update(bank, bank.flip(0), queries, labels, momentum=momentum, hardest=hardest)
    expected = hard_update(bank, queries, labels, momentum=momentum), *hybrid
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), atol=1e-12)


def test_updates_off_the_cpu_never_ask_for_a_value():
    # A meta tensor has no values: whatever would wait for a device is an error.
    bank, queries = torch.empty(9, 5, device="meta"), torch.empty(6, 5, device="meta")
    labels = torch.empty(6, dtype=torch.int64, device="meta")
    assert hard_update_(bank, queries, labels, momentum=0.1) is bank
    hybrid_update_(bank, bank.clone(), queries, labels, momentum=0.1, hardest=2)
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((labels >= 0).any())


KERNEL_ON_THE_CPU = """
import torch
from torch.nn.functional import normalize
from harness.memory_updates.cuda_kernel import follow_queries
from harness.memory_updates import multi_centre_update

generator = torch.Generator().manual_seed(0)
for centres, size, total in ((1, 7, 20), (3, 5, 12), (1, 16, 1)):
    bank = normalize(torch.randn(4, centres, size, generator=generator), dim=2)
    queries = torch.randn(total, size, generator=generator)
    labels = torch.randint(-1, 4, (total,), generator=generator)
    expected = multi_centre_update(bank, queries, labels, momentum=0.2)
    follow_queries(bank, queries, labels, 0.2)
    torch.testing.assert_close(bank, expected, atol=1e-6, rtol=0)
"""


@pytest.mark.slow
def test_the_kernel_for_accelerators_equals_the_compiled_one():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_ON_THE_CPU], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("name", IN_PLACE)
def test_updates_on_an_accelerator_equal_the_compiled_ones_and_wait_for_nothing(name):
    in_place, copying, count = IN_PLACE[name]
    generator = torch.Generator().manual_seed(0)
    bank = normalize(torch.randn(50, 2048, generator=generator), dim=1)
    rows = bank.reshape(10, 5, 2048) if name == "multi-centre" else bank
    queries = normalize(torch.randn(384, 2048, generator=generator), dim=1)
    labels = torch.randint(-1, 10, (384,), generator=generator)
    expected = copying(*([rows] * count), queries, labels, momentum=0.2)
    banks = [rows.cuda() for _ in range(count)]
    there = queries.cuda(), labels.cuda()
    in_place(*banks, *there, momentum=1.0)  # compiles; with momentum 1 every row stays
    torch.cuda.set_sync_debug_mode("error")
    try:
        in_place(*banks, *there, momentum=0.2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for found, wanted in zip(banks, expected if count == 2 else [expected], strict=True):
        torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=0)


def test_a_bank_that_cannot_be_written_in_place_is_an_error():
    labels = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(HarnessError, match="not contiguous"):
        momentum_update_(torch.eye(4)[:, :2], torch.ones(1, 2), labels, momentum=0.1)
    with pytest.raises(HarnessError, match="float32 or float64"):
        hard_update_(torch.eye(2).half(), torch.ones(1, 2), labels, momentum=0.1)


def test_the_first_of_equally_hard_queries_is_taken():
    bank = torch.tensor([[1.0, 0.0, 0.0]])
    batch = torch.tensor([[0.6, 0.8, 0.0], [0.6, 0.0, 0.8]])
    labels = torch.zeros(2, dtype=torch.int64)
    assert hard_update(bank, batch, labels, momentum=0.1)[0, 2] == 0
    assert hard_update(bank, batch.flip(0), labels, momentum=0.1)[0, 1] == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 10_000))
def test_random_replacement_writes_one_feature_of_the_batch_into_each_touched_row(rows, size, seed):
    bank, queries, labels = drawn(rows, size, seed)
    found = random_replacement(bank, queries, labels, generator=torch.Generator().manual_seed(seed))
    for k in range(rows):
        candidates = normalize(queries[labels == k], dim=1)
        if len(candidates):
            assert (candidates == found[k]).all(dim=1).any()
        else:
            assert torch.equal(found[k], bank[k])


def test_random_replacement_gives_every_candidate_the_same_chance():
    bank, batch = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    labels, generator = torch.tensor([0, 0, -1, 0]), torch.Generator().manual_seed(0)
    counts = {}
    for _ in range(1200):
        row = tuple(random_replacement(bank, batch, labels, generator=generator)[0].tolist())
        counts[row] = counts.get(row, 0) + 1
    assert len(counts) == 3
    assert min(counts.values()) > 330


def test_random_replacement_is_a_function_of_the_generator(bank, queries):
    draws = [random_replacement(bank, queries, LABELS, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)


UPDATES = {
    "momentum": partial(momentum_update, momentum=0.2),
    "hard": partial(hard_update, momentum=0.2),
    "hybrid": lambda bank, queries, labels: torch.cat(hybrid_update(bank, bank, queries, labels, momentum=0.2)),
    "random": lambda *given: random_replacement(*given, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_an_update_changes_nothing_in_place_and_carries_no_gradient(update, bank, queries):
    before = bank.clone(), queries.clone()
    result = update(bank, queries.requires_grad_(), LABELS)
    assert not result.requires_grad
    assert torch.equal(bank, before[0])
    assert torch.equal(queries.detach(), before[1])


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_a_batch_of_outliers_or_of_nothing_leaves_the_bank_as_it_is(update, bank, queries):
    unchanged = update(bank, queries, torch.full((6,), -1))
    assert torch.equal(unchanged[:3], bank)
    assert torch.equal(update(bank, queries[:0], LABELS[:0])[:3], bank)


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_a_batch_that_does_not_fit_the_bank_is_an_error(update, bank, queries):
    with pytest.raises(HarnessError, match="Label 2 was given to a bank of 2 rows"):
        update(bank[:2], queries, LABELS)
    with pytest.raises(HarnessError, match=r"\[B, D\]"):
        update(bank, queries[:, :3], LABELS)
    with pytest.raises(HarnessError, match=r"\[B, D\]"):
        update(bank, queries, LABELS[:5])


def test_hybrid_banks_of_different_shapes_are_an_error(bank, queries):
    with pytest.raises(HarnessError, match="hard bank"):
        hybrid_update(bank, bank[:2], queries, LABELS, momentum=0.1)


CLEAN = [
    [-0.003432, -0.001286, -0.002461, -0.00189],
    [-0.087724, 0.999918, 0.545727, -0.281893],
    [-0.34756, -0.967716, -0.742832, -0.001984],
]
RELEASED = [
    [0.00053, -0.003083, 0.004224, -0.002124],
    [0.208567, 0.225271, -0.446248, -0.524968],
    [-0.104418, -0.558825, 0.877186, 0.166511],
]


def two_terms(similarity, queries, second_queries):
    first = cross_entropy(similarity(queries, LABELS) / 0.2, LABELS)
    second = cross_entropy(similarity(second_queries, LABELS_SECOND) / 0.2, LABELS_SECOND)
    assert float(first.detach()) == pytest.approx(2.479860, abs=1e-5)
    assert float(second.detach()) == pytest.approx(3.408773, abs=1e-5)
    return first + 0.25 * second


def test_with_a_frozen_bank_the_terms_do_not_disturb_each_other(bank, queries, second_queries):
    queries.requires_grad_()
    two_terms(lambda q, _: q @ bank.T, queries, second_queries.requires_grad_()).backward()
    close(queries.grad[:3], CLEAN)


def test_with_the_released_memory_the_later_term_moves_the_bank_under_the_earlier(bank, queries, second_queries):
    queries.requires_grad_()
    similarity = ReleasedSimilarity(bank.clone(), update=partial(momentum_update, momentum=0.2))
    two_terms(similarity, queries, second_queries.requires_grad_()).backward()
    close(queries.grad[:3], RELEASED)
    expected = [
        [-0.443634, 0.742849, -0.500503, -0.029341],
        [-0.040103, 0.517468, -0.620466, 0.587913],
        [0.244695, -0.523404, 0.632701, -0.515618],
    ]
    close(similarity.bank, expected)
    frozen = queries.detach().clone().requires_grad_()
    (cross_entropy(frozen @ bank.T / 0.2, LABELS)).backward()
    error = (queries.grad - frozen.grad).norm() / frozen.grad.norm()
    assert float(error) == pytest.approx(1.40, abs=0.005)


def hybrid_loss(similarity, labels):
    centroid, hard = similarity.chunk(2, dim=1)
    return 0.5 * (cross_entropy(hard, labels) + (cross_entropy(centroid, labels) - 0.2).relu())


def test_released_memory_of_two_stacked_banks():
    def update(bank, queries, labels):
        return torch.cat(hybrid_update(*bank.chunk(2), queries, labels, momentum=0.1))

    similarity = ReleasedSimilarity(torch.eye(2).repeat(2, 1), update=update)
    label = torch.tensor([0])
    visible = torch.tensor([[0.8, 0.6]], requires_grad=True)
    infrared = torch.tensor([[0.6, 0.8]], requires_grad=True)
    first = hybrid_loss(similarity(normalize(visible, dim=1), label), label)
    second = hybrid_loss(similarity(normalize(infrared, dim=1), label), label)
    (first + 0.25 * second).backward()
    close(similarity.bank[[0, 2]], [[0.787860, 0.615854]] * 2)
    close(visible.grad, [[-0.162246, 0.216328]])
    close(infrared.grad, [[-0.153954, 0.115465]])


def test_released_memory_of_two_modalities_by_two_momentum_updates():
    similarity = ReleasedSimilarity(torch.eye(2), update=partial(momentum_update, momentum=0.1))
    label = torch.tensor([0])
    infrared = torch.tensor([[0.8, 0.6]], requires_grad=True)
    visible = torch.tensor([[0.6, 0.8]], requires_grad=True)
    first = cross_entropy(similarity(normalize(infrared, dim=1), label), label)
    second = cross_entropy(similarity(normalize(visible, dim=1), label), label)
    (first + second).backward()
    close(similarity.bank[0], [0.787860, 0.615854])
    close(infrared.grad, [[-0.162246, 0.216328]])
    close(visible.grad, [[-0.615814, 0.461861]])


def test_released_memory_is_written_only_by_a_backward_pass(bank, queries):
    similarity = ReleasedSimilarity(bank.clone(), update=partial(momentum_update, momentum=0.2))
    assert not similarity(queries, LABELS).requires_grad
    loss = similarity(queries.requires_grad_(), LABELS).sum()
    assert torch.equal(similarity.bank, bank)
    loss.backward()
    torch.testing.assert_close(similarity.bank, momentum_update(bank, queries, LABELS, momentum=0.2))
    torch.testing.assert_close(queries.grad, bank.sum(dim=0).expand(6, 4))
