"""ECUL's parts, against the behavioural checks of ecul.md 6."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.clustering.dbscan import dbscan
from harness.contracts import OUTLIER, Draw, Partition, PseudoLabels
from harness_dmic.clusterer import expanded_jaccard
from harness_dmic.expansion import CameraGroups, InvariantExpansion
from harness_dmic.losses import HybridContrastLoss
from harness_dmic.options import HybridContrastOptions
from harness_dmic.recipes import dmic_recipe
from harness_ecul import EMCC, Ecul
from harness_ecul.emcc import EmccClusterer, ExtendedExpansion
from harness_ecul.losses import UnitedContrastLoss
from harness_ecul.options import EmccOptions, TsmemOptions, UnitedContrastOptions, UnitedMemoryOptions
from harness_ecul.selection import aggregated, bidirectional_means, matched
from harness_ecul.tsmem import TwoStepMemory, random_members, step_of
from tests.plugins import invariant_oracle as oracle


def groups_of(groups: list[tuple[int, int]]) -> CameraGroups:
    modality, camera = torch.tensor(groups).T
    return CameraGroups.of(modality, camera)


# Checks 1 and 4: which neighbours take part.

PROBE_GROUPS = [(0, 1)] * 4 + [(0, 2), (1, 3), (0, 2), (1, 3)]


def averages(ranking: list[int], groups: list, *, k2: int, k3: int, rule: str = "cap") -> np.ndarray:
    """The first row of the averaging matrix where every image has the same list."""
    lists = np.array([ranking] * len(ranking))
    return ExtendedExpansion(groups_of(groups), cap=k2, rule=rule)(lists, k3).toarray()[0]


@pytest.mark.parametrize(
    ("k2", "k3", "expected"),
    [
        (4, 4, [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0, 0, 0, 0]),
        (2, 4, [1 / 2, 1 / 2, 0, 0, 0, 0, 0, 0]),
        (2, 6, [1 / 8, 1 / 8, 0, 0, 1 / 4, 1 / 2, 0, 0]),
        (2, 8, [1 / 8, 1 / 8, 0, 0, 1 / 8, 1 / 4, 1 / 8, 1 / 4]),
        (1, 8, [1 / 4, 0, 0, 0, 1 / 4, 1 / 2, 0, 0]),
        (3, 8, [1 / 12, 1 / 12, 1 / 12, 0, 1 / 8, 1 / 4, 1 / 8, 1 / 4]),
    ],
)
def test_neighbours_of_one_camera_are_capped_as_in_check_1(k2: int, k3: int, expected: list[float]) -> None:
    np.testing.assert_allclose(averages([*range(8)], PROBE_GROUPS, k2=k2, k3=k3), expected, atol=1e-15)


@pytest.mark.parametrize(
    ("k2", "expected"),
    [
        (2, [1 / 8, 1 / 8, 0, 0, 1 / 8, 1 / 4, 1 / 8, 1 / 4]),
        (5, [1 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 4, 1 / 4, 0, 1 / 4]),
        (6, [1 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 4, 1 / 2, 0, 0]),
    ],
)
def test_two_tiers_extend_to_missing_cameras_only(k2: int, expected: list[float]) -> None:
    np.testing.assert_allclose(averages([*range(8)], PROBE_GROUPS, k2=k2, k3=8, rule="two_tier"), expected, atol=1e-15)


@pytest.mark.parametrize("extra", [1, 2, 5])
def test_more_neighbours_of_a_full_camera_change_nothing(extra: int) -> None:
    groups = PROBE_GROUPS + [(0, 1)] * extra
    inserted = [0, 1, *range(8, 8 + extra), *range(2, 8)]
    before, after = averages([*range(8)], PROBE_GROUPS, k2=2, k3=8), averages(inserted, groups, k2=2, k3=8 + extra)
    np.testing.assert_allclose(after, [*before, *[0] * extra], atol=1e-15)
    lists = np.array([inserted] * len(inserted))
    mie = InvariantExpansion(groups_of(groups))(lists, 8 + extra).toarray()[0]
    mie_before = InvariantExpansion(groups_of(PROBE_GROUPS))(np.array([[*range(8)]] * 8), 8).toarray()[0]
    assert np.abs(mie[:8] - mie_before).max() > 0.01


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    total=st.integers(2, 36),
    k1=st.integers(2, 14),
    k2=st.integers(1, 6),
    extra=st.integers(0, 12),
    rule=st.sampled_from(["cap", "two_tier"]),
    form=st.sampled_from(["nested", "flat", "plain"]),
)
def test_distance_is_that_of_a_walk_through_the_lists(seed, total, k1, k2, extra, rule, form) -> None:
    features, groups = oracle.crowd(seed, total)
    expansion = ExtendedExpansion(groups_of(groups), form, k1, cap=k2, rule=rule)
    found = expanded_jaccard(features, k1=k1, width=k2 + extra, expansion=expansion)
    expected = oracle.distance(features.numpy(), groups, k1=k1, k2=k2, k3=k2 + extra, form=form, rule=rule)
    np.testing.assert_allclose(oracle.dense(found), expected, atol=1e-9)


# Check 2: reduction.


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    k3=st.integers(2, 16),
    more=st.integers(0, 3),
    rule=st.sampled_from(["cap", "two_tier"]),
    form=st.sampled_from(["nested", "flat"]),
)
def test_with_a_cap_that_never_binds_it_is_mie(seed: int, k3: int, more: int, rule: str, form: str) -> None:
    features, groups = oracle.crowd(seed, 60)
    found, expected = (
        oracle.dense(expanded_jaccard(features, k1=16, width=k3, expansion=expansion))
        for expansion in (
            ExtendedExpansion(groups_of(groups), form, cap=k3 + more, rule=rule),
            InvariantExpansion(groups_of(groups), form),
        )
    )
    assert np.abs(found - expected).max() < 1e-12


# Check 3: features.


def bridge_distance(k2: int):
    groups = CameraGroups.of(torch.tensor(oracle.BRIDGE_MODALITY), torch.tensor(oracle.BRIDGE_CAMERA))
    return expanded_jaccard(oracle.bridge(), k1=7, width=7, expansion=ExtendedExpansion(groups, cap=k2))


@pytest.mark.parametrize(
    ("k2", "expected"),
    [
        (1, {(0, 6): 0.086952, (5, 6): 0, (0, 1): 0.000054, (0, 11): 0.166621, (0, 12): 0.705861}),
        (3, {(0, 6): 0.140812, (5, 6): 0.114253}),
        (6, {(0, 6): 0.140806, (5, 6): 0.140806}),
    ],
)
def test_distances_of_the_bridge_are_those_of_check_3(k2: int, expected: dict) -> None:
    sparse = bridge_distance(k2)
    found = oracle.dense(sparse)
    np.testing.assert_allclose([found[pair] for pair in expected], [*expected.values()], atol=1e-6)
    labels = dbscan(sparse, eps=0.5, min_samples=4)
    assert np.bincount(labels).tolist() == [12, 4]


# EMCC as a clusterer.

SMALL = {"k1_intra": 14, "k1_joint": 28, "k2_intra": 3, "k2_joint": 8, "min_samples": 3}


@pytest.mark.parametrize("rule", ["cap", "two_tier"])
def test_emcc_clusters_apart_and_in_the_second_phase_jointly(kit: SimpleNamespace, people: tuple, rule: str) -> None:
    train, features = people
    clusterer = EmccClusterer(EmccOptions(**SMALL, rule=rule), kit.setup(train, 24))
    intra = clusterer.cluster(kit.Epoch(train, features, stages=2, cross=False))
    inter = clusterer.cluster(kit.Epoch(train, features, stages=2, stage_number=1))
    assert intra.given == ("visible", "infrared")
    assert inter.draws == (Draw(("visible", "infrared")), Draw(("joint",)))
    assert [inter[name].num_clusters for name in inter.given] == [12, 12, 12]


def test_sizes_come_from_the_options(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 3)
    epoch = kit.Epoch(train, torch.zeros(6, 2), index=25, stage_epochs=50, cross=False)
    clusterer = EmccClusterer(EMCC.resolve_options("sysu-mm01", {}), kit.setup(train, 2))
    intra, joint = (clusterer.search(epoch, joint=value) for value in (False, True))
    assert (intra.k1, intra.width, intra.eps) == (30, 12, 0.6)
    assert (joint.k1, joint.width, joint.eps) == (40, 40, 0.6)
    made = joint.expansion(groups_of(PROBE_GROUPS))
    assert (made.cap, made.rule, made.form, made.encoded) == (16, "cap", "nested", 40)
    wide = EmccClusterer(EmccOptions(k3_intra=50, k3_joint=60, dnc=True), kit.setup(train, 2))
    assert [wide.search(epoch, joint=value).width for value in (False, True)] == [50, 60]
    assert wide.search(epoch, joint=False).eps == pytest.approx(0.424264, abs=1e-6)


def test_regdb_has_a_smaller_radius_and_smaller_sizes() -> None:
    options = EMCC.resolve_options("regdb", {})
    assert (options.eps, options.k1_intra, options.k1_joint, options.k2_intra, options.k2_joint) == (0.3, 30, 38, 3, 10)
    assert (options.width_intra, options.width_joint) == (6, 38)


@pytest.mark.parametrize("sizes", [{"k2_intra": 6, "k3_intra": 5}, {"k2_joint": 41}, {"k2_joint": 9, "k3_joint": 8}])
def test_an_outer_neighbourhood_smaller_than_the_cap_is_refused(sizes: dict) -> None:
    with pytest.raises(ValidationError, match="k3 must be at least k2"):
        EmccOptions(**sizes)


# Check 5: cross-modality memory aggregation.

VISIBLE = torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.6, 0.8], [0.0, 1.0]])
INFRARED = torch.tensor([[0.8, 0.6], [0.28, 0.96], [-0.6, 0.8]])


def selection_memory(kit: SimpleNamespace, *, cross: bool = True, **options: object) -> TwoStepMemory:
    train = kit.train_index(4, 3)
    labels = PseudoLabels(
        train,
        {"visible": torch.tensor([0, 0, 1, 1, -1, -1, -1]), "infrared": torch.tensor([-1, -1, -1, -1, 0, 1, 1])},
    )
    memory = TwoStepMemory(UnitedMemoryOptions(**{"step1_init": "mean", **options}), kit.setup(train, 2))
    memory.build(kit.Epoch(train, torch.cat([VISIBLE, INFRARED]), stages=2, cross=cross), labels)
    return memory


def means(rows: Tensor, *groups: list[int]) -> Tensor:
    return torch.stack([normalize(rows[group].mean(0), dim=0) for group in groups])


def test_matches_are_those_of_check_5() -> None:
    labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1])
    assert matched((VISIBLE, INFRARED), labels, threshold=0.5) == [(1, 1), (0, 0)]
    assert matched((VISIBLE, INFRARED), labels, threshold=1.1) == []


def test_visible_prototypes_take_in_infrared_ones_as_in_check_5(kit: SimpleNamespace) -> None:
    memory = selection_memory(kit)
    visible = memory.bank("visible").vectors
    expected = torch.tensor([[0.818995, 0.554142], [-0.129374, 0.980351]])
    assert_close(visible, expected, atol=1e-5, rtol=0)
    assert_close(visible.norm(dim=1), torch.tensor([0.988851, 0.988851]), atol=1e-5, rtol=0)
    assert_close(memory.bank("infrared").vectors, means(INFRARED, [0], [1, 2]))
    renormed = selection_memory(kit, cma_renorm=True).bank("visible").vectors
    assert_close(renormed, normalize(expected, dim=1), atol=1e-5, rtol=0)


def test_aggregation_can_go_both_ways_from_the_banks_as_they_were(kit: SimpleNamespace) -> None:
    memory = selection_memory(kit, cma_direction="both")
    visible, infrared = means(VISIBLE, [0, 1], [2, 3]), means(INFRARED, [0], [1, 2])
    assert_close(memory.bank("visible").vectors, 0.1 * visible + 0.9 * infrared)
    assert_close(memory.bank("infrared").vectors, 0.1 * infrared + 0.9 * visible)


@pytest.mark.parametrize(
    "options", [{"cross": False}, {"instance_selection": "off"}, {"selection_threshold": 1.0}], ids=str
)
def test_without_evidence_banks_stay_as_built(kit: SimpleNamespace, options: dict) -> None:
    memory = selection_memory(kit, **options)
    assert_close(memory.bank("visible").vectors, means(VISIBLE, [0, 1], [2, 3]))
    assert_close(memory.bank("infrared").vectors, means(INFRARED, [0], [1, 2]))


def test_pairs_that_are_not_there_leave_the_very_banks() -> None:
    assert aggregated(VISIBLE, INFRARED, [], keep=0.1)[0] is VISIBLE


def naive_bidirectional(features, labels, banks, threshold):
    """A loop over clusters and images; returns the new (visible, infrared) banks."""
    result = [bank.clone().double() for bank in banks]
    for own, other in ((0, 1), (1, 0)):
        for k in range(len(banks[own])):
            rows = [f.double() for f, label in zip(features[own], labels[own], strict=True) if label == k]
            table = [[min(max(float(f @ c.double()), -1), 1) for c in banks[other]] for f in rows]
            scores = [np.mean([max(line[l] - threshold, 0) for line in table]) for l in range(len(banks[other]))]
            best = int(np.argmax(scores))
            if scores[best] > 0:
                near = [f for f, line in zip(rows, table, strict=True) if line[best] >= threshold]
                result[other][best] = 0.4 * result[other][best] + 0.6 * torch.stack(near).mean(0)
    return result


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_bidirectional_means_are_those_of_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = tuple(normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (14, 11))
    labels = tuple(torch.cat([torch.arange(3), torch.randint(-1, 3, (n - 3,), generator=generator)]) for n in (14, 11))
    banks = tuple(normalize(torch.randn(3, 3, generator=generator), dim=1) for _ in range(2))
    found = bidirectional_means(features, labels, banks, threshold=0.5)
    for bank, expected in zip(found, naive_bidirectional(features, labels, banks, 0.5), strict=True):
        assert_close(bank, expected.float(), atol=1e-5, rtol=1e-5)


def test_bidirectional_means_are_a_rule_of_the_memory(kit: SimpleNamespace) -> None:
    memory = selection_memory(kit, instance_selection="bidirectional_mean")
    banks = means(VISIBLE, [0, 1], [2, 3]), means(INFRARED, [0], [1, 2])
    labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1])
    expected = naive_bidirectional((VISIBLE, INFRARED), labels, banks, 0.5)
    for name, bank in zip(("visible", "infrared"), expected, strict=True):
        assert_close(memory.bank(name).vectors, bank.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", ["cma", "bidirectional_mean"])
def test_a_modality_without_clusters_takes_and_gives_nothing(kit: SimpleNamespace, rule: str) -> None:
    train = kit.train_index(2, 2)
    labels = PseudoLabels(train, {"visible": torch.tensor([0, 0, -1, -1]), "infrared": torch.full((4,), OUTLIER)})
    memory = TwoStepMemory(UnitedMemoryOptions(instance_selection=rule), kit.setup(train, 2))
    memory.build(kit.Epoch(train, torch.ones(4, 2), stages=2), labels)
    assert_close(memory.bank("visible").vectors, normalize(torch.ones(1, 2), dim=1))
    assert memory.bank("infrared").vectors.shape == (0, 2)


# Losses.


def test_terms_are_dmics_with_eculs_weights(kit: SimpleNamespace) -> None:
    _, labels, memory = scene(kit, late=True)
    train, epoch = labels.train, kit.Epoch(labels.train, torch.zeros(40, 6))
    batch = kit.batch(labels, [0, 1, 2, 21, 22])
    embeddings = kit.embeddings(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
    ones = HybridContrastOptions(phi1_intra=1, phi1_inter=1, phi2_intra=1, phi2_inter=1)
    plain = HybridContrastLoss(ones, kit.setup(train, 6)).terms(batch, embeddings, memory, epoch)
    weighted = UnitedContrastLoss(
        UnitedContrastOptions(w_instance=2, w_joint=0.7, w_joint_instance=0.5), kit.setup(train, 6)
    ).terms(batch, embeddings, memory, epoch)
    weights = {"cluster/visible": 1, "cluster/infrared": 1, "cluster/joint": 0.7}
    weights |= {"instance/visible": 2, "instance/infrared": 2, "instance/joint": 0.35}
    expected = {f"united-contrast/{name}": w * plain[f"hybrid-contrast/{name}"] for name, w in weights.items()}
    assert_close(weighted, expected)
    assert UnitedContrastOptions().w_joint_instance == 0.1


# Checks 6 and 7: TSMem.


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


def test_banks_of_images_take_random_queries_in_both_steps(kit: SimpleNamespace) -> None:
    for late in (False, True):
        features, labels, memory = scene(kit, late=late)
        assert_close(memory.instances("joint").vectors, normalize(features, dim=1))
        assert_close(memory.instances("infrared").vectors, normalize(features[20:], dim=1))
        queries = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        memory.update(kit.batch(labels, [5, 24]), kit.embeddings(queries))
        assert_close(memory.instances("joint").vectors[[5, 24]], normalize(queries, dim=1))
        assert_close(memory.instances("infrared").vectors[4], normalize(queries[1], dim=0))
        assert int(memory.instances("joint").cluster[3]) == OUTLIER


def test_the_whole_method_offers_its_parts_and_trains_as_dmic_does() -> None:
    assert [p.name for p in Ecul.harness_clusterers()] == ["emcc"]
    assert [p.name for p in Ecul.harness_memories()] == ["united-memory"]
    assert [p.name for p in Ecul.harness_losses()] == ["united-contrast"]
    for dataset in ("sysu-mm01", "regdb", "rendered"):
        assert Ecul.harness_recipe(dataset) == dmic_recipe(dataset)
