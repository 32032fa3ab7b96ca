"""TSMem, against the behavioural checks of ecul.md 6."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.contracts import OUTLIER, Partition, PseudoLabels
from harness_ecul import TsmemOptions
from harness_ecul.tsmem import TwoStepMemory, random_members, step_of


def scene(kit: SimpleNamespace, *, late: bool, seed: int = 0, **options: object) -> tuple:
    train = kit.train_index(20, 20)
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(9))
    joint = torch.arange(40) % 5
    joint[[3, 31]] = OUTLIER
    labels = PseudoLabels(train, {"joint": joint})
    memory = TwoStepMemory(TsmemOptions(**options), kit.setup(train, 6))
    epoch = kit.Epoch(train, features, stages=2, stage_number=int(late), cross=late, seed=seed)
    memory.build(epoch, labels)
    return features, labels, memory


def slot_memory(kit: SimpleNamespace, **options: object) -> tuple:
    """One visible cluster whose prototype is (1, 0), in step 2."""
    train = kit.train_index(1, 0)
    labels = PseudoLabels(train, {"visible": torch.tensor([0])})
    memory = TwoStepMemory(TsmemOptions(**options), kit.setup(train, 2))
    memory.build(kit.Epoch(train, torch.tensor([[1.0, 0.0]]), stages=2, cross=True), labels)
    return labels, memory


@pytest.mark.parametrize(
    ("momentum", "first", "second"),
    [
        (0.1, [0.835171, 0.549991], [0.626849, 0.779141]),
        (0.2, [0.868243, 0.496139], [0.662413, 0.749139]),
        (0.0, [0.8, 0.6], [0.6, 0.8]),
    ],
)
def test_step_2_moves_prototypes_as_in_check_6(kit, momentum: float, first: list, second: list) -> None:
    labels, memory = slot_memory(kit, step2_momentum=momentum)
    for query, expected in (([0.8, 0.6], first), ([0.6, 0.8], second)):
        memory.update(kit.batch(labels, [0]), kit.embeddings(torch.tensor([query])))
        assert_close(memory.bank("visible").vectors, torch.tensor([expected]), atol=1e-5, rtol=0)


def test_step_2_takes_a_batch_in_random_order(kit: SimpleNamespace) -> None:
    queries = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    forward = torch.tensor([0.626849, 0.779141])
    seen = set()
    for seed in range(12):
        train = kit.train_index(1, 0)
        labels = PseudoLabels(train, {"visible": torch.tensor([0])})
        memory = TwoStepMemory(TsmemOptions(), kit.setup(train, 2))
        memory.build(kit.Epoch(train, torch.tensor([[1.0, 0.0]]), stages=2, cross=True, seed=seed), labels)
        memory.update(kit.batch(labels, [0, 0]), kit.embeddings(queries))
        row = memory.bank("visible").vectors[0]
        is_forward = bool(torch.allclose(row, forward, atol=1e-5))
        assert is_forward or bool(torch.allclose(row, sequential(queries.flip(0)), atol=1e-5))
        seen.add(is_forward)
    assert seen == {True, False}


def sequential(queries: Tensor, momentum: float = 0.1) -> Tensor:
    row = torch.tensor([1.0, 0.0])
    for query in queries:
        row = normalize(momentum * row + (1 - momentum) * query, dim=0)
    return row


def test_step_1_starts_from_members_of_the_clusters(kit: SimpleNamespace) -> None:
    features, labels, memory = scene(kit, late=False)
    assert set(memory.names) == {"joint", "visible", "infrared"}
    unit = normalize(features, dim=1)
    for name in memory.names:
        for k, row in enumerate(memory.bank(name).vectors):
            members = unit[labels[name].labels == k]
            assert bool((members - row).abs().sum(1).min() < 1e-6)


def test_step_1_starts_differently_with_another_seed_and_equally_with_the_same(kit: SimpleNamespace) -> None:
    banks = [scene(kit, late=False, seed=seed)[2].bank("joint").vectors for seed in (0, 1, 0)]
    assert not torch.equal(banks[0], banks[1])
    assert torch.equal(banks[0], banks[2])


def test_step_2_starts_from_the_means_whatever_the_seed(kit: SimpleNamespace) -> None:
    features, labels, memory = scene(kit, late=True, seed=0)
    other = scene(kit, late=True, seed=1)[2]
    for name in memory.names:
        partition = labels[name]
        means = torch.stack([features[partition.labels == k].mean(0) for k in range(partition.num_clusters)])
        assert_close(memory.bank(name).vectors, normalize(means, dim=1))
        assert torch.equal(memory.bank(name).vectors, other.bank(name).vectors)


def test_step_1_replaces_touched_prototypes_by_a_query_of_their_cluster(kit: SimpleNamespace) -> None:
    _, labels, memory = scene(kit, late=False)
    before = memory.bank("joint").vectors.clone()
    rows = torch.tensor([0, 5, 20, 25, 1])
    queries = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    memory.update(kit.batch(labels, rows), kit.embeddings(queries))
    after = memory.bank("joint").vectors
    unit = normalize(queries, dim=1)
    assert bool((unit[:4] - after[0]).abs().sum(1).min() < 1e-6)
    assert_close(after[1], unit[4])
    assert_close(after[2:], before[2:])


def test_every_query_of_a_cluster_can_be_the_one_that_stays(kit: SimpleNamespace) -> None:
    queries = normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    seen = set()
    for seed in range(30):
        _, labels, memory = scene(kit, late=False, seed=seed)
        memory.update(kit.batch(labels, [0, 5, 10]), kit.embeddings(queries))
        seen.add(int((queries - memory.bank("joint").vectors[0]).abs().sum(1).argmin()))
    assert seen == {0, 1, 2}


def test_inits_can_be_exchanged(kit: SimpleNamespace) -> None:
    early = scene(kit, late=False, step1_init="mean")[2].bank("joint").vectors
    late = scene(kit, late=True)[2].bank("joint").vectors
    assert torch.equal(early, late)


@pytest.mark.parametrize(
    ("switch", "stages", "cross", "expected"),
    [
        ("phase", 1, True, [1, 1, 2, 2]),
        ("phase", 1, False, [1, 1, 2, 2]),
        ("phase", 2, False, [1, 1, 1, 1]),
        ("phase", 2, True, [2, 2, 2, 2]),
        (3, 1, True, [1, 1, 1, 2]),
        (1, 2, True, [1, 2, 2, 2]),
        (1, 2, False, [1, 1, 1, 1]),
        (0, 1, False, [2, 2, 2, 2]),
    ],
)
def test_the_switch_decides_the_step(kit, switch: str | int, stages: int, cross: bool, expected: list[int]) -> None:
    train = kit.train_index(1, 1)
    epochs = [
        kit.Epoch(train, torch.zeros(2, 2), index=e, stages=stages, stage_epochs=4, cross=cross) for e in range(4)
    ]
    assert [step_of(epoch, switch) for epoch in epochs] == expected


def test_random_members_are_drawn_evenly_and_never_outliers() -> None:
    partition = Partition(torch.tensor([0, -1, 1, 0, 1, 0, -1]))
    rng = np.random.default_rng(0)
    drawn = torch.stack([random_members(partition, rng) for _ in range(600)])
    assert {tuple(sorted(set(column.tolist()))) for column in drawn.T} == {(0, 3, 5), (2, 4)}
    assert int(torch.bincount(drawn[:, 0])[[0, 3, 5]].min()) > 150


def test_all_outliers_make_an_empty_bank(kit: SimpleNamespace) -> None:
    train = kit.train_index(2, 2)
    labels = PseudoLabels(train, {"joint": torch.full((4,), OUTLIER)})
    for cross in (False, True):
        memory = TwoStepMemory(TsmemOptions(), kit.setup(train, 3))
        memory.build(kit.Epoch(train, torch.ones(4, 3), stages=2, cross=cross), labels)
        assert memory.bank("joint").vectors.shape == (0, 3)
        memory.update(kit.batch(labels, [0, 2]), kit.embeddings(torch.ones(2, 3)))


@pytest.mark.parametrize("switch", ["epoch", -1])
def test_a_switch_that_is_neither_a_phase_nor_an_epoch_is_refused(switch: object) -> None:
    with pytest.raises(ValidationError):
        TsmemOptions(switch=switch)
