"""HIL's parts, against the behavioural checks of hil.md 7."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.contracts import OUTLIER, Bank, BankKind, Batch, Embeddings, Memory, Partition, PseudoLabels, Setup
from harness.contrast import contrast
from harness.engine.run import plan_run, run_planned
from harness.engine.train import learning_rate
from harness.errors import WeightsError
from harness.plugins import Catalogue, load, select
from harness_baseline import Baseline, ClusterMemoryOptions
from harness_baseline.memory import ClusterMemory
from harness_chcr import Chcr
from harness_dmic import Dnc
from harness_hil import Brst, Hil, Mccl, Neighbours, mccl, neighbours
from harness_hil.brst import ReverseSelection, reverse_selection
from harness_hil.losses import BranchContrastLoss
from harness_hil.mccl import MultiCentreContrastLoss, agreeing_contrast, distances_to, multi_centre_contrast
from harness_hil.memory import MultiCentreMemory, sub_centres
from harness_hil.neighbours import NeighbourContrastLoss, directions, neighbour_contrast, shared_neighbours
from harness_hil.options import (
    BranchContrastOptions,
    BrstOptions,
    MultiCentreContrastOptions,
    MultiCentreMemoryOptions,
    NeighbourContrastOptions,
)
from harness_pclhd import Hpcl
from tests.plugins import hil_oracle as oracle
from toy_parts import Silent, toy_settings

PLUGINS = {"hil": Hil, "brst": Brst, "mccl": Mccl, "neighbours": Neighbours}
GRADS = pytest.mark.parametrize("memory_grad", ["clean", "released"])
TWO = {"main": 4, "deep": 2, "shallow": 2}
EARLY, LATE = {"epoch": 19, "stage_epochs": 30}, {"epoch": 20, "stage_epochs": 30}


def close(found: Tensor, expected: object, atol: float = 1e-4) -> None:
    assert_close(found.detach().float(), torch.as_tensor(expected, dtype=torch.float32), atol=atol, rtol=0)


def branch_epoch(kit: SimpleNamespace, train, features: dict[str, Tensor], **options: object):
    """An epoch of two embeddings, which keeps what parts note."""

    class Branched(kit.Epoch):
        def features(self, *, encoder: str = "online", embedding: str = "main", view: str = "plain") -> Tensor:
            return features[embedding].clone()

        def note(self, text: str) -> None:
            self.notes.append(text)

    epoch = Branched(train, next(iter(features.values())), **options)
    epoch.notes = []
    return epoch


def both(deep: Tensor, shallow: Tensor) -> dict[str, Tensor]:
    return {"main": torch.cat([deep, shallow], dim=1), "deep": deep, "shallow": shallow}


def joint_labels(train, labels: list[int]) -> PseudoLabels:
    return PseudoLabels(train, {"joint": torch.tensor(labels)})


# Check 1: secondary clustering.


def test_sub_centres_are_those_of_check_1() -> None:
    features = torch.tensor([[1, 0], [1, 0.2], [0, 1], [0.2, 1], [-1, 0], [-1, -1], [9, 9]])
    found = sub_centres(features, Partition(torch.tensor([0, 0, 0, 0, 1, 1, -1])), count=2, blend=0.9)
    close(found[0, 0], [0.707107, 0.707107])
    close(found[0, 1:][found[0, 1:, 0].argsort()], [[0.647090, 0.762413], [0.762413, 0.647090]])
    close(found[1], [[-0.894427, -0.447214]] * 3)


def test_clusters_without_enough_distinct_images_get_their_mean_every_time() -> None:
    features = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 2)
    found = sub_centres(features, Partition(torch.tensor([0] * 7)), count=3, blend=0.5)
    close(found[0], normalize(torch.tensor([[5.0, 2.0]]), dim=1).expand(4, 2))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_sub_centres_equal_a_loop_over_clusters(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 3, generator=generator) + 1
    labels = Partition(torch.cat([torch.arange(3), torch.randint(-1, 3, (37,), generator=generator)]))
    found = sub_centres(features, labels, count=count, blend=0.7)
    for cluster in range(3):
        rows = features[labels.labels == cluster]
        mean = rows.mean(0)
        expected = [mean] * (count + 1)
        if len(rows) > count:
            groups = KMeans(count, n_init=10, random_state=0).fit_predict(rows.numpy())
            expected[1:] = [0.7 * mean + 0.3 * rows[torch.as_tensor(groups == g)].mean(0) for g in range(count)]
        close(found[cluster], normalize(torch.stack(expected), dim=1), atol=1e-5)


# Check 2: BRST.


@pytest.mark.parametrize(("rho", "expected"), [(0.8, [0, 0, -1, -1, 1, 0, -1]), (0.5, [0, 0, 0, 1, 1, 0, -1])])
def test_reverse_selection_is_that_of_check_2(kit, rho: float, expected: list[int]) -> None:
    features, labels = kit.at_degrees(0, 20, 40, 50, 85, 30, 5), torch.tensor([0, 0, 0, 1, 1, 2, -1])
    assert reverse_selection(features, labels, prototypes_KD=torch.eye(2), rho=rho).tolist() == expected


@pytest.mark.parametrize(("rho", "expected"), [(0.5, [0, 0, 1]), (0.8, [-1, 0, 1])])
def test_reverse_selection_is_that_of_check_2_where_no_image_is_at_the_prototype(kit, rho, expected) -> None:
    features = kit.at_degrees(-60, 44.9, 100)
    assert reverse_selection(features, torch.tensor([0, 0, 1]), prototypes_KD=torch.eye(2), rho=rho).tolist() == (
        expected
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 6), st.floats(0, 1))
def test_reverse_selection_equals_a_loop_over_images(seed: int, images: int, clusters: int, rho: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 4, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(clusters, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 3, (images,), generator=generator)
    found = reverse_selection(features, labels, prototypes_KD=prototypes, rho=rho)
    assert found.tolist() == oracle.reverse_selection(features.numpy(), labels.tolist(), prototypes.numpy(), rho)
    own_length = torch.rand(images, 1, generator=generator, dtype=torch.float64) + 0.5
    assert torch.equal(reverse_selection(features * own_length, labels, prototypes_KD=prototypes, rho=rho), found)


def brst_scene(kit, given: str, **epoch: object):
    """The visible images of check 2 and two infrared clusters, clustered by modality or jointly."""
    train = kit.train_index(7, 2)
    features = torch.cat([kit.at_degrees(0, 20, 40, 50, 85, 30, 5), torch.eye(2)])
    visible, infrared = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1, -1]), torch.tensor([-1] * 7 + [0, 1])
    if given == "apart":
        labels = PseudoLabels(train, {"visible": visible, "infrared": infrared})
    elif given == "joint":
        labels = joint_labels(train, [0, 0, 0, 1, 1, 2, -1, 1, 3])
    else:
        labels = PseudoLabels(train, {"visible": visible, "infrared": infrared, "joint": torch.zeros_like(visible)})
    return branch_epoch(kit, train, {"main": features}, **epoch), labels, kit.setup(train, 2)


def grouping(labels: Tensor) -> list[set[int]]:
    return sorted(({*np.flatnonzero(labels == k)} for k in range(int(labels.max()) + 1)), key=min)


@pytest.mark.parametrize("given", ["apart", "joint"])
def test_visible_images_join_infrared_clusters_whatever_the_clusterer_gave(kit, given: str) -> None:
    epoch, labels, setup = brst_scene(kit, given)
    before = labels["infrared"].labels
    refined = ReverseSelection(BrstOptions(rho=0.8), setup).refine(epoch, labels)
    assert grouping(refined["joint"].labels.numpy()) == [{0, 1, 5, 7}, {4, 8}]
    assert torch.equal(refined["infrared"].labels, before)
    assert refined.given == labels.given
    assert [set(refined.views(draw)) for draw in refined.draws] == [{"visible", "infrared", "joint"}]
    assert epoch.notes == []


def test_a_joint_clustering_beside_those_of_modalities_is_left_alone(kit) -> None:
    epoch, labels, setup = brst_scene(kit, "all")
    refined = ReverseSelection(BrstOptions(rho=0.8), setup).refine(epoch, labels)
    assert torch.equal(refined["joint"].labels, labels["joint"].labels)
    assert refined["visible"].labels.tolist() == [0, 0, -1, -1, 1, 0, -1, -1, -1]
    assert refined.link("visible", "infrared").tolist() == [0, 1]
    assert len(refined.draws) == 2


def test_an_infrared_cluster_may_stay_without_visible_images(kit) -> None:
    epoch, labels, setup = brst_scene(kit, "apart")
    labels = labels.replace({"visible": torch.tensor([0, 0, 0, 0, -1, 0, -1, -1, -1])})
    refined = ReverseSelection(BrstOptions(rho=0.99), setup).refine(epoch, labels)
    assert refined["visible"].labels[:7].tolist() == [0, -1, -1, -1, -1, -1, -1]
    assert refined.link("infrared", "visible").tolist() == [0, -1]
    assert refined["joint"].num_clusters == 2
    outliers = labels.replace({"visible": torch.full((9,), OUTLIER)})
    refined = ReverseSelection(BrstOptions(), setup).refine(epoch, outliers)
    assert refined["visible"].num_clusters == 0
    assert refined["joint"].num_clusters == 2
    assert refined.link("infrared", "visible").tolist() == [-1, -1]


@pytest.mark.parametrize(("epoch", "giving"), [(0, "infrared"), (1, "visible")])
def test_alternate_takes_the_other_direction_in_odd_epochs(kit, epoch: int, giving: str) -> None:
    context, labels, setup = brst_scene(kit, "apart", epoch=epoch)
    found = ReverseSelection(BrstOptions(direction="alternate"), setup).refine(context, labels)
    direction = "r2v" if giving == "infrared" else "v2r"
    same = ReverseSelection(BrstOptions(direction=direction), setup).refine(context, labels)
    assert torch.equal(found[giving].labels, labels[giving].labels)
    assert all(torch.equal(found[name].labels, same[name].labels) for name in ("visible", "infrared", "joint"))


def test_v2r_is_the_mirror_image_of_r2v(kit) -> None:
    epoch, labels, setup = brst_scene(kit, "apart")
    forward = ReverseSelection(BrstOptions(rho=0.8), setup).refine(epoch, labels)
    mirror = kit.train_index(2, 7)
    order = torch.tensor([7, 8, 0, 1, 2, 3, 4, 5, 6])
    swapped = PseudoLabels(
        mirror, {"visible": labels["infrared"].labels[order], "infrared": labels["visible"].labels[order]}
    )
    context = branch_epoch(kit, mirror, {"main": epoch.features()[order]})
    back = ReverseSelection(BrstOptions(rho=0.8, direction="v2r"), kit.setup(mirror, 2)).refine(context, swapped)
    assert torch.equal(back["infrared"].labels, forward["visible"].labels[order])
    assert torch.equal(back["visible"].labels, forward["infrared"].labels[order])


def test_brst_waits_for_cross_modality_evidence_and_says_so_if_there_is_never_any(kit) -> None:
    for stages, notes in ((2, 0), (1, 1)):
        epoch, labels, setup = brst_scene(kit, "apart", cross=False, stages=stages)
        assert ReverseSelection(BrstOptions(), setup).refine(epoch, labels) is labels
        assert len(epoch.notes) == notes


def test_brst_without_infrared_clusters_changes_nothing(kit) -> None:
    epoch, labels, setup = brst_scene(kit, "apart")
    labels = labels.replace({"infrared": torch.full((9,), OUTLIER)})
    assert ReverseSelection(BrstOptions(), setup).refine(epoch, labels) is labels


# Checks 3 and 4: centroids, and the order in which a shared memory changes.


def centroid_bench(kit, memory_grad: str, **options: object):
    """Two joint clusters with the unit vectors as centroids, one embedding, temperature 1."""
    train = kit.train_index(2, 2)
    epoch = branch_epoch(kit, train, {"main": torch.eye(2).repeat(2, 1)}, **options)
    labels = joint_labels(train, [0, 1, 0, 1])
    setup = kit.setup(train, 2)
    memory = MultiCentreMemory(MultiCentreMemoryOptions(memory_grad=memory_grad), setup)
    memory.build(epoch, labels)

    def step(raw: Tensor, rows: list[int], temperature: float = 1.0) -> dict[str, Tensor]:
        batch, embeddings = kit.batch(labels, rows), Embeddings({"main": raw})
        loss = BranchContrastLoss(BranchContrastOptions(temperature=temperature), setup)
        terms = loss.terms(batch, embeddings, memory, epoch)
        sum(terms.values()).backward()
        memory.update(batch, embeddings.detach())
        return terms

    return memory, step


def raw_rows(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).requires_grad_()


@GRADS
def test_centroid_memory_is_that_of_check_3(kit, memory_grad: str) -> None:
    memory, step = centroid_bench(kit, memory_grad)
    raw = raw_rows((0.8, 0.6), (0.6, 0.8))
    terms = step(raw, [2, 2])
    assert set(terms) == {"branch-contrast/infrared/main"}
    close(terms["branch-contrast/infrared/main"], 0.698139)
    close(raw.grad, [[-0.189070, 0.252093], [-0.307907, 0.230930]])
    close(memory.vectors("joint")[0], [0.626849, 0.779141])
    close(memory.bank("joint").vectors[0], [0.626849, 0.779141])
    _, step = centroid_bench(kit, memory_grad)
    close(step(raw_rows((0.8, 0.6), (0.6, 0.8)), [2, 2], 0.05)["branch-contrast/infrared/main"], 2.018150)


@pytest.mark.parametrize(
    ("memory_grad", "infrared"), [("released", [-0.162246, 0.216328]), ("clean", [-0.378139, 0.504186])]
)
def test_shared_memory_gives_the_gradients_of_check_4(kit, memory_grad: str, infrared: list[float]) -> None:
    memory, step = centroid_bench(kit, memory_grad)
    raw = raw_rows((0.6, 0.8), (0.8, 0.6))
    step(raw, [0, 2])
    close(memory.vectors("joint")[0], [0.787860, 0.615854])
    close(raw.grad, [[-0.615814, 0.461861], infrared])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_a_step_on_shared_centroids_equals_the_released_loops(seed: int) -> None:
    from tests.plugins import conftest as kit

    generator = torch.Generator().manual_seed(seed)
    train, size = kit.train_index(6, 6), 5
    features = torch.randn(12, size, generator=generator)
    labels = joint_labels(train, [0, 0, 1, 1, 2, 2] * 2)
    setup = kit.setup_for(train, size)
    memory = MultiCentreMemory(MultiCentreMemoryOptions(memory_grad="released"), setup)
    memory.build(kit.GivenEpoch(train, features), labels)
    bank = memory.vectors("joint").double().numpy().copy()
    raw = (3 * torch.randn(7, size, generator=generator)).requires_grad_()
    rows = [0, 1, 4, 6, 6, 9, 11]
    batch, embeddings = kit.batch_of(labels, rows), Embeddings({"main": raw})
    terms = BranchContrastLoss(BranchContrastOptions(temperature=0.5), setup).terms(
        batch, embeddings, memory, kit.GivenEpoch(train, features)
    )
    sum(terms.values()).backward()
    memory.update(batch, embeddings.detach())
    queries, own = raw.detach().double().numpy(), batch.labels["joint"].tolist()
    ahead = [oracle.Softmax(query, bank, label, temperature=0.5) for query, label in zip(queries, own, strict=True)]
    gradient = np.zeros_like(queries)
    for part in (range(3), range(3, 7)):  # the visible term was made last, so it goes back first
        for i in part:
            gradient[i] = ahead[i].gradient(bank) / len(part)
        for i in part:
            bank[own[i]] = oracle.momentum(bank[own[i]], [oracle.unit(queries[i])], 0.1)
    close(terms["branch-contrast/visible/main"], np.mean([term.loss for term in ahead[:3]]))
    close(raw.grad, gradient)
    close(memory.vectors("joint"), bank)


def test_without_joint_labels_modalities_keep_their_own_centroids(kit) -> None:
    train = kit.train_index(2, 2)
    epoch = branch_epoch(kit, train, {"main": torch.eye(2).repeat(2, 1)})
    labels = PseudoLabels(train, {"visible": torch.tensor([0, 1, -1, -1]), "infrared": torch.tensor([-1, -1, 1, 0])})
    setup = kit.setup(train, 2)
    memory = MultiCentreMemory(MultiCentreMemoryOptions(), setup)
    memory.build(epoch, labels)
    loss = BranchContrastLoss(BranchContrastOptions(temperature=1.0), setup)
    raw = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    terms = loss.terms(kit.batch(labels, [0, 2]), Embeddings({"main": raw}), memory, epoch)
    expected = -torch.tensor([1.0, 0.0]).log_softmax(0)[0]
    close(terms["branch-contrast/visible/main"], expected)
    close(terms["branch-contrast/infrared/main"], expected)


def test_first_epoch_of_a_warm_up_may_have_a_momentum_of_its_own(kit) -> None:
    options = MultiCentreMemoryOptions(first_momentum=0.99)
    train = kit.train_index(1, 1)
    labels = joint_labels(train, [0, 0])
    cases = [
        ({"cross": False, "stages": 2}, 0.99),
        ({"stages": 2}, 0.1),
        ({"cross": False, "stages": 2, "index": 1}, 0.1),
    ]
    for epoch, share in cases:
        memory = MultiCentreMemory(options, kit.setup(train, 2))
        memory.build(branch_epoch(kit, train, {"main": torch.eye(2)[[0, 0]]}, **epoch), labels)
        memory.update(kit.batch(labels, [0]), Embeddings({"main": torch.tensor([[0.0, 1.0]])}))
        close(memory.vectors("joint")[0], normalize(torch.tensor([share, 1 - share]), dim=0))


# Checks 5 and 6: MCCL.


class GivenBank(Memory):
    """A memory whose bank is given, the same for every embedding."""

    def __init__(self, bank: Bank, name: str = "joint") -> None:
        self._bank, self._name = bank, name

    def build(self, epoch, labels) -> None:
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        return (self._name,)

    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        return self._bank

    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        raise NotImplementedError


def bank_5(kit) -> Bank:
    vectors = kit.at_degrees(0, -10, 10, 90, 80, 100, 180, 170, 190)
    kind = torch.full((9,), BankKind.SUB_CENTRE)
    return Bank(vectors, torch.arange(3).repeat_interleave(3), kind=kind)


def mccl_terms(kit, bank: Bank, deep: Tensor, shallow: Tensor | None, *, visible: int, **epoch: object):
    """MCCL's terms of a joint batch, the first ``visible`` images being visible. Labels are all 0."""
    count = len(deep)
    train = kit.train_index(visible, count - visible)
    labels = joint_labels(train, [0] * count)
    tensors = {"main": deep} if shallow is None else both(deep, shallow)
    setup = Setup(train=train, dataset="test", embedding_dims={name: t.shape[1] for name, t in tensors.items()})
    context = branch_epoch(kit, train, {name: t.detach() for name, t in tensors.items()}, **{**LATE, **epoch})
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), setup)
    return loss.terms(kit.batch(labels, torch.arange(count)), Embeddings(tensors), GivenBank(bank), context)


def test_mccl_is_that_of_check_5(kit) -> None:
    deep, shallow = kit.at_degrees(20, 60, 95, 135.5), kit.at_degrees(30, 40, 96, 150)
    deep[0] *= 3
    terms = mccl_terms(kit, bank_5(kit), deep, shallow, visible=2)
    # The terms across modalities equal these, and are counted as a factor of two.
    expected = {"visible/deep": 0.195416, "visible/shallow": 0.171840, "infrared/deep": 0.337533}
    expected["infrared/shallow"] = 0.106405
    assert set(terms) == {f"mccl/{name}" for name in expected}
    for name, value in expected.items():
        close(terms[f"mccl/{name}"], 2 * value)


def test_distances_and_gradient_are_those_of_check_5(kit) -> None:
    bank, raw = bank_5(kit), kit.at_degrees(20).requires_grad_()
    distances = distances_to(bank, normalize(raw, dim=1))
    close(distances[0, [0, 1, 2, 4, 7]], [0.347296, 0.517638, 0.174311, 1.0, 1.931852])
    own = (1 / distances[0, :3]).mean()
    close(own, 3.516031)
    value = multi_centre_contrast(distances, bank, torch.tensor([0]))
    value.sum().backward()
    close(value, [0.195416])
    close(raw.grad, [[-0.293868, 0.807396]])


def test_queries_whose_embeddings_disagree_give_zero_as_in_check_6(kit) -> None:
    deep, shallow = kit.at_degrees(20).requires_grad_(), kit.at_degrees(90.5).requires_grad_()
    terms = mccl_terms(kit, bank_5(kit), deep, shallow, visible=1)
    sum(terms.values()).backward()
    assert {name: value.item() for name, value in terms.items()} == {"mccl/visible/deep": 0, "mccl/visible/shallow": 0}
    assert not deep.grad.any()
    assert not shallow.grad.any()


def test_a_query_that_equals_a_prototype_is_finite_as_in_check_6(kit) -> None:
    raw = kit.at_degrees(0, 90).requires_grad_()
    terms = mccl_terms(kit, bank_5(kit), raw, None, visible=1)
    sum(terms.values()).backward()
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    assert bool(torch.isfinite(raw.grad).all())


def test_a_single_cluster_gives_zero(kit) -> None:
    raw = kit.at_degrees(20).requires_grad_()
    bank = Bank(kit.at_degrees(0, 10), torch.tensor([0, 0]))
    (term,) = mccl_terms(kit, bank, raw, None, visible=1).values()
    term.backward()
    assert term.item() == 0
    assert not raw.grad.any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_mccl_equals_a_loop_over_queries(seed: int, clusters: int, labelled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 4, (clusters,), generator=generator)
    cluster = torch.arange(clusters).repeat_interleave(sizes)
    mixed = torch.randperm(len(cluster), generator=generator)
    queries, banks, naive = {}, {}, {}
    labels = torch.randint(0, clusters, (9,), generator=generator) if labelled else None
    for name in ("deep", "shallow"):
        vectors = normalize(torch.randn(len(cluster), 3, generator=generator, dtype=torch.float64), dim=1)
        queries[name] = normalize(torch.randn(9, 3, generator=generator, dtype=torch.float64), dim=1)
        banks[name] = Bank(vectors[mixed], cluster[mixed])
        centres = [vectors[cluster == k].numpy() for k in range(clusters)]
        positive = [None] * 9 if labels is None else labels.tolist()
        naive[name] = [
            oracle.multi_centre(query, centres, own) for query, own in zip(queries[name].numpy(), positive, strict=True)
        ]
    agree = [i for i in range(9) if naive["deep"][i][1] == naive["shallow"][i][1]]
    for name, value in agreeing_contrast(queries, banks, labels).items():
        expected = np.mean([naive[name][i][0] for i in agree]) if agree else 0.0
        assert float(value) == pytest.approx(expected, abs=1e-6)


def test_with_one_embedding_every_query_counts(kit) -> None:
    terms = mccl_terms(kit, bank_5(kit), kit.at_degrees(20, 60), None, visible=2)
    values = [oracle.multi_centre(row.double().numpy(), list(bank_5(kit).vectors.double().numpy().reshape(3, 3, 2)))[0]
              for row in kit.at_degrees(20, 60)]  # fmt: skip
    close(terms["mccl/visible/main"], 2 * np.mean(values))


def test_a_single_centroid_memory_serves_mccl_and_the_loss_says_so(kit, people) -> None:
    train, features = people
    epoch = branch_epoch(kit, train, {"main": features}, **LATE)
    labels = joint_labels(train, (torch.arange(96) // 8).repeat(2).tolist())
    setup = kit.setup(train, 24)
    memory = ClusterMemory(ClusterMemoryOptions(), setup)
    memory.build(epoch, labels)
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), setup)
    loss.begin(epoch, labels, memory)
    assert ["one centre only" in note for note in epoch.notes] == [True]
    rows = torch.arange(0, 96, 5)
    terms = loss.terms(kit.batch(labels, rows), Embeddings({"main": features[rows]}), memory, epoch)
    centres = list(memory.vectors("joint").double().numpy()[:, None])
    values = [oracle.multi_centre(row, centres)[0] for row in features[rows].double().numpy()]
    close(terms["mccl/visible/main"], 2 * np.mean(values))


def test_mccl_with_sub_centres_notes_nothing(kit, people) -> None:
    train, features = people
    epoch = branch_epoch(kit, train, {"main": features}, **LATE)
    labels = joint_labels(train, (torch.arange(96) // 8).repeat(2).tolist())
    memory = MultiCentreMemory(MultiCentreMemoryOptions(), kit.setup(train, 24))
    memory.build(epoch, labels)
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), kit.setup(train, 24))
    loss.begin(epoch, labels, memory)
    assert epoch.notes == []


def apart_scene(kit, **epoch: object):
    """Two visible clusters at 0 and 90 degrees, two infrared ones at 10 and 100; no links."""
    train = kit.train_index(2, 2)
    features = kit.at_degrees(0, 90, 10, 100)
    context = branch_epoch(kit, train, {"main": features}, **{**LATE, **epoch})
    labels = PseudoLabels(train, {"visible": torch.tensor([0, 1, -1, -1]), "infrared": torch.tensor([-1, -1, 0, 1])})
    memory = MultiCentreMemory(MultiCentreMemoryOptions(), kit.setup(train, 2))
    memory.build(context, labels)
    return context, labels, memory


def test_banks_of_either_modality_give_terms_within_and_across(kit) -> None:
    epoch, labels, memory = apart_scene(kit)
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), memory.setup)
    queries = kit.at_degrees(20, 95)
    terms = loss.terms(kit.batch(labels, [0, 3]), Embeddings({"main": queries}), memory, epoch)
    banks = {name: list(memory.vectors(name).double().numpy()[:, None]) for name in ("visible", "infrared")}
    rows = dict(zip(("visible", "infrared"), queries.double().numpy(), strict=True))
    for name in ("visible", "infrared", "visible-infrared", "infrared-visible"):
        source, _, target = name.partition("-")
        close(terms[f"mccl/{name}/main"], oracle.multi_centre(rows[source], banks[target or source])[0])
    assert len(terms) == 4
    epoch.cross = False
    assert len(loss.terms(kit.batch(labels, [0, 3]), Embeddings({"main": queries}), memory, epoch)) == 2


def test_positive_by_label_follows_the_links_and_leaves_out_the_rest(kit) -> None:
    epoch, labels, memory = apart_scene(kit)
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(positive="label"), memory.setup)
    queries = kit.at_degrees(80, 15)
    found = loss.terms(kit.batch(labels, [0, 3]), Embeddings({"main": queries}), memory, epoch)
    assert set(found) == {"mccl/visible/main", "mccl/infrared/main"}
    centres = list(memory.vectors("visible").double().numpy()[:, None])
    close(found["mccl/visible/main"], oracle.multi_centre(queries[0].double().numpy(), centres, 0)[0])
    labels = labels.replace(links={("visible", "infrared"): torch.tensor([1, -1])}, partitions={})
    batch = kit.batch(labels, [0, 1])
    batch = Batch(**{**{s: getattr(batch, s) for s in batch.__slots__}, "labels": {
        name: batch.labels[name] for name in ("visible", "infrared")}})  # fmt: skip
    found = loss.terms(batch, Embeddings({"main": kit.at_degrees(80, 80)}), memory, epoch)
    centres = list(memory.vectors("infrared").double().numpy()[:, None])
    close(found["mccl/visible-infrared/main"], oracle.multi_centre(queries[0].double().numpy(), centres, 1)[0])


def test_mccl_is_silent_in_a_warm_up_and_the_memory_then_makes_no_sub_centres(kit) -> None:
    epoch, labels, memory = apart_scene(kit, cross=False, stages=2)
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), memory.setup)
    loss.begin(epoch, labels, memory)
    assert loss.terms(kit.batch(labels, [0, 3]), Embeddings({"main": kit.at_degrees(1, 2)}), memory, epoch) == {}
    assert epoch.notes == []
    assert memory.bank("visible").single


def test_partitions_of_other_names_have_no_mccl_and_the_loss_says_so(kit) -> None:
    train = kit.train_index(2, 0)
    labels = PseudoLabels(train, {"own": torch.tensor([0, 1])})
    epoch = branch_epoch(kit, train, {"main": torch.eye(2)})
    loss = MultiCentreContrastLoss(MultiCentreContrastOptions(), kit.setup(train, 2))
    loss.begin(epoch, labels, GivenBank(Bank.of_centroids(torch.eye(2)), "own"))
    assert len(epoch.notes) == 1


# The memory's bank.


def test_bank_holds_centroids_then_sub_centres_of_the_joint_clusters_of_both_embeddings(kit, people) -> None:
    train, features = people
    deep, shallow = features[:, :12], features[:, 12:]
    epoch = branch_epoch(kit, train, both(deep, shallow))
    labels = joint_labels(train, (torch.arange(96) // 8).repeat(2).tolist())
    setup = Setup(train=train, dataset="test", embedding_dims={"main": 24, "deep": 12, "shallow": 12})
    memory = MultiCentreMemory(MultiCentreMemoryOptions(sub_centres=3), setup)
    memory.build(epoch, labels)
    for embedding, rows in (("deep", deep), ("shallow", shallow)):
        bank = memory.bank("joint", embedding=embedding)
        assert bank.vectors.shape == (12 + 12 * 4, 12)
        assert_close(bank.vectors[:12], normalize(rows.view(2, 12, 8, 12).mean((0, 2)), dim=1))
        assert_close(bank.vectors[12:], sub_centres(rows, labels["joint"], count=3, blend=0.9).flatten(0, 1))
        assert bank.cluster.tolist() == [*range(12), *sorted([*range(12)] * 4)]
        assert bank.kind.tolist() == [BankKind.CENTROID] * 12 + [BankKind.SUB_CENTRE] * 48
    assert memory.bank("joint").single
    assert memory.bank("visible", embedding="deep").single


@GRADS
def test_batches_move_centroids_and_leave_sub_centres_unless_asked_to(kit, people, memory_grad: str) -> None:
    train, features = people
    epoch = branch_epoch(kit, train, {"main": features})
    labels = joint_labels(train, (torch.arange(96) // 8).repeat(2).tolist())
    rows = torch.tensor([0, 1, 9])
    queries = normalize(features[rows] + 0.3, dim=1)
    for update_multi in (False, True):
        options = MultiCentreMemoryOptions(memory_grad=memory_grad, sub_centres=2, update_multi=update_multi)
        memory = MultiCentreMemory(options, kit.setup(train, 24))
        memory.build(epoch, labels)
        before = memory.bank("joint").vectors.clone()
        raw = queries.clone().requires_grad_()
        batch = kit.batch(labels, rows)
        BranchContrastLoss(BranchContrastOptions(), memory.setup).terms(
            batch, Embeddings({"main": raw}), memory, epoch
        )["branch-contrast/visible/main"].backward()
        memory.update(batch, Embeddings({"main": queries}))
        after = memory.bank("joint").vectors
        expected = before.double().numpy().copy()
        for label, query in zip([0, 0, 1], queries.double().numpy(), strict=True):
            expected[label] = oracle.momentum(expected[label], [query], 0.1)
            if update_multi:
                own = 12 + 3 * label + int(np.argmax(expected[12 + 3 * label : 15 + 3 * label] @ query))
                expected[own] = oracle.momentum(expected[own], [query], 0.1)
        close(after, expected, atol=1e-5)


def test_other_losses_contrast_with_centroids_and_sub_centres_alike(kit) -> None:
    memory, _ = centroid_bench(kit, "released", cross=True)
    assert not memory.bank("joint").single
    raw = kit.at_degrees(20).requires_grad_()
    bank = memory.bank("joint")
    value = contrast(bank, raw, torch.tensor([0]), temperature=1.0)
    logits = bank.vectors @ raw.detach()[0]
    own = bank.cluster == 0
    value.backward()
    close(value, logits.logsumexp(0) - logits[own].logsumexp(0))
    assert bool(raw.grad.any())
    close(memory.vectors("joint")[0], oracle.momentum(np.array([1.0, 0.0]), [raw.detach()[0].double().numpy()], 0.1))


# Checks 7 and 8: neighbours and the memory of images.


def neighbour_scene(kit, *, options: dict | None = None, **epoch: object):
    train = kit.train_index(3, 3)
    deep, shallow = kit.at_degrees(0, 5, 90, 3, 12, 80), kit.at_degrees(0, 40, 90, 2, 60, 85)
    labels = joint_labels(train, [0, 0, 1, 0, 0, 1])
    context = branch_epoch(kit, train, both(deep, shallow), **epoch)
    setup = Setup(train=train, dataset="test", embedding_dims=TWO)
    chosen = {"weight": 1.0, "cross_weight": 1.0, **(options or {})}
    loss = NeighbourContrastLoss(NeighbourContrastOptions(**chosen), setup)
    loss.begin(context, labels, GivenBank(Bank.of_centroids(torch.eye(2))))
    raw = both(kit.at_degrees(1, 88, 4, 79), kit.at_degrees(2, 80, 1, 82))
    return loss, kit.batch(labels, [0, 2, 3, 5]), Embeddings(raw), context


CHECK_7 = {
    "visible": (0.167643, 0.003374),
    "infrared": (0.150485, 0.026853),
    "visible-infrared": (0.013280, 0.003500),
    "infrared-visible": (0.179062, 0.002335),
}


@pytest.mark.parametrize(("epoch", "across"), [(0, "visible-infrared"), (1, "infrared-visible")])
@GRADS
def test_neighbour_terms_are_those_of_check_7(kit, memory_grad: str, epoch: int, across: str) -> None:
    loss, batch, embeddings, context = neighbour_scene(kit, options={"memory_grad": memory_grad}, epoch=epoch)
    terms = loss.terms(batch, embeddings, None, context)
    expected = {
        f"neighbour-contrast/{name}/{branch}": value
        for name in ("visible", "infrared", across)
        for branch, value in zip(("deep", "shallow"), CHECK_7[name], strict=True)
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        close(terms[name], value)


def test_neighbours_must_be_near_in_both_embeddings(kit) -> None:
    deep, shallow = kit.at_degrees(0, 5, 90), kit.at_degrees(0, 40, 90)
    found = shared_neighbours([deep[[0, 2]], shallow[[0, 2]]], [deep, shallow], threshold=0.9)
    assert found.tolist() == [[True, False, False], [False, False, True]]
    assert shared_neighbours([deep[[0, 2]]], [deep], threshold=0.9)[0].tolist() == [True, True, False]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.6, 0.9]), st.integers(1, 2))
def test_neighbour_contrast_equals_a_loop_over_images(seed: int, threshold: float, embeddings: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = [normalize(torch.rand(12, 3, generator=generator).double(), dim=1) for _ in range(embeddings)]
    own = [rows[[0, 4, 4, 7]] for rows in images]
    near = shared_neighbours(own, images, threshold=threshold)
    arrays = [[rows.numpy() for rows in group] for group in (own, images)]
    naive = oracle.neighbours(*arrays, threshold)
    assert np.array_equal(near.numpy(), naive)
    queries = normalize(torch.randn(4, 3, generator=generator).double(), dim=1)
    found = neighbour_contrast(queries @ images[0].T, near, temperature=0.05)
    assert float(found) == pytest.approx(
        oracle.neighbour_contrast(queries.numpy(), arrays[1][0], naive, 0.05), abs=1e-4
    )


def test_a_share_below_the_floor_has_no_gradient() -> None:
    similarity = torch.tensor([[1.0, -1.0]], requires_grad=True)
    value = neighbour_contrast(similarity, torch.tensor([[False, True]]), temperature=0.05)
    value.backward()
    assert float(value.detach()) == pytest.approx(-np.log(1e-8) / 2)
    assert not similarity.grad.any()


@pytest.mark.parametrize(("update_with", "expected"), [("raw", [0.668965, 0.743294]), ("unit", [0.993884, 0.110432])])
@GRADS
def test_rows_of_images_move_as_in_check_8(kit, memory_grad: str, update_with: str, expected: list[float]) -> None:
    options = {"memory_grad": memory_grad, "update_with": update_with}
    loss, batch, _, context = neighbour_scene(kit, options=options)
    raw = torch.tensor([[0.0, 10.0]]).repeat(4, 1)
    embeddings = Embeddings(both(raw, raw))
    loss.terms(batch, embeddings, None, context)
    loss.update(batch, embeddings.detach())
    close(loss._rows["visible", "deep"][0], expected)
    close(loss._rows["visible", "deep"][1], kit.at_degrees(5)[0])


def test_the_preset_moves_rows_by_raw_embeddings_before_the_backward_pass() -> None:
    catalogue = Catalogue([], extra={"baseline": Baseline, **PLUGINS})
    for plugins, grad in ((["hil"], "released"), (["baseline", "neighbours", "mccl"], "clean")):
        chosen = {part.name: part.options for part in select(catalogue, plugins, dataset="sysu-mm01").parts}
        assert (chosen["neighbour-contrast"].update_with, chosen["neighbour-contrast"].momentum) == ("raw", 0.9)
        assert chosen["neighbour-contrast"].memory_grad == grad
        assert chosen["multi-centre-memory"].memory_grad == grad


def test_released_gradients_mix_shares_from_before_with_rows_from_after(kit) -> None:
    found = {}
    for grad in ("clean", "released"):
        loss, batch, embeddings, context = neighbour_scene(
            kit, options={"memory_grad": grad, "cross_weight": 0, "shallow_weight": 0}
        )
        raw = {name: tensor.clone().requires_grad_() for name, tensor in embeddings.items()}
        before = loss._rows["visible", "deep"].double().numpy().copy()
        terms = loss.terms(batch, Embeddings(raw), None, context)
        after = loss._rows["visible", "deep"].double().numpy().copy()
        terms["neighbour-contrast/visible/deep"].backward()
        found[grad] = raw["deep"].grad[:2], before, after
    gradient, before, after = found["released"]
    assert not np.allclose(before, after)
    assert np.array_equal(found["clean"][1], found["clean"][2])
    for row, raw, own in ((0, kit.at_degrees(1), 0), (1, kit.at_degrees(88), 2)):
        one = oracle.Softmax(raw[0].double().numpy(), before, own, temperature=0.05)
        close(gradient[row], one.gradient(after) / 2 / 2)  # one neighbour: n = 2; two queries
        close(found["clean"][0][row], one.gradient(before) / 2 / 2)


def test_both_views_of_an_image_move_its_row_one_after_the_other(kit) -> None:
    loss, _, _, context = neighbour_scene(kit)
    labels = joint_labels(loss.setup.train, [0, 0, 1, 0, 0, 1])
    raw = 5 * kit.at_degrees(30, 70, 10)
    batch = kit.batch(labels, [1, 1, 4])
    loss.terms(batch, Embeddings(both(raw, raw)), None, context)
    loss.update(batch, Embeddings(both(raw, raw)))
    queries = raw.double().numpy()
    close(
        loss._rows["visible", "deep"][1],
        oracle.momentum(oracle.unit(kit.at_degrees(5)[0].double().numpy()), list(queries[:2]), 0.9),
    )
    close(
        loss._rows["infrared", "shallow"][1], oracle.momentum(kit.at_degrees(60)[0].double().numpy(), [queries[2]], 0.9)
    )


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        ({"epoch": 0}, {"visible": 0.1, "infrared": 0.1, "visible-infrared": 0.01}),
        ({"epoch": 1}, {"visible": 0.1, "infrared": 0.1, "infrared-visible": 0.1}),
        ({"epoch": 9, "cross": False, "stages": 2}, {"visible": 1, "infrared": 1}),
        ({"epoch": 10, "cross": False, "stages": 2}, {"visible": 1, "infrared": 1, "visible-infrared": 0.05}),
        ({"epoch": 11, "cross": False, "stages": 2}, {"visible": 1, "infrared": 1, "infrared-visible": 0.5}),
        ({"epoch": 11, "cross": False}, {"visible": 0.1, "infrared": 0.1}),
    ],
)
def test_weights_of_neighbour_terms_follow_the_stage(kit, epoch: dict, expected: dict[str, float]) -> None:
    context = branch_epoch(kit, kit.train_index(1, 1), {"main": torch.eye(2)}, stage_epochs=30, **epoch)
    found = directions(context, NeighbourContrastOptions())
    named = {source if source == target else f"{source}-{target}": weight for source, target, weight in found}
    assert named == pytest.approx(expected)


def test_on_regdb_the_warm_up_begins_without_neighbours(kit) -> None:
    (_, _, provider) = Hil.harness_losses()
    options = provider.resolve_options("regdb", {})
    begun = {}
    for epoch in (0, 1, 9, 10):
        context = branch_epoch(
            kit, kit.train_index(1, 1), {"main": torch.eye(2)}, epoch=epoch, stage_epochs=20, cross=False, stages=2
        )
        begun[epoch] = len(directions(context, options))
    assert begun == {0: 0, 1: 2, 9: 2, 10: 3}


def test_a_recipe_without_cross_modality_evidence_has_no_term_across_and_the_loss_says_so(kit) -> None:
    loss, batch, embeddings, context = neighbour_scene(kit, cross=False)
    assert len(context.notes) == 1
    assert {name.split("/")[1] for name in loss.terms(batch, embeddings, None, context)} == {"visible", "infrared"}


# Check 9: weights.


@pytest.mark.parametrize(("epoch", "expected"), [(18, 6.515), (19, None), (20, 10.315)])
def test_total_of_unit_terms_is_that_of_check_9(kit, monkeypatch, epoch: int, expected: float | None) -> None:
    one = torch.ones((), requires_grad=True)
    monkeypatch.setattr("harness_hil.losses.contrast", lambda *a, **k: one)
    monkeypatch.setattr(mccl, "agreeing_contrast", lambda queries, banks, labels: dict.fromkeys(queries, one))
    monkeypatch.setattr(neighbours, "neighbour_contrast", lambda *a, **k: one)
    train = kit.train_index(2, 2)
    context = branch_epoch(
        kit,
        train,
        both(torch.eye(2).repeat(2, 1), torch.eye(2).repeat(2, 1)),
        epoch=epoch,
        stage_epochs=30,
        stages=2,
        stage_number=1,
    )
    labels, setup = joint_labels(train, [0, 1, 0, 1]), Setup(train=train, dataset="test", embedding_dims=TWO)
    memory = MultiCentreMemory(MultiCentreMemoryOptions(), setup)
    memory.build(context, labels)
    total = 0.0
    for kind, options in (
        (BranchContrastLoss, BranchContrastOptions()),
        (MultiCentreContrastLoss, MultiCentreContrastOptions()),
        (NeighbourContrastLoss, NeighbourContrastOptions()),
    ):
        loss = kind(options, setup)
        loss.begin(context, labels, memory)
        raw = torch.eye(2).repeat(2, 1)
        terms = loss.terms(kit.batch(labels, torch.arange(4)), Embeddings(both(raw, raw)), memory, context)
        total += sum(float(term.detach()) for term in terms.values())
    # Odd epochs: the term across modalities has no factor of 0.1; before epoch 20, w = 0.1.
    odd = 4 + 0.1 * 3 + 0.1 * 1.5 + 2 * 0.1 * 3
    even = 4 + 0.1 * 3 + 0.1 * 0.1 * 1.5 + 2 * 0.1 * 3
    assert total == pytest.approx({18: even, 19: odd, 20: 10.315}[epoch], abs=1e-5)


# Check 10: Jaccard distance.


def test_jaccard_distance_is_that_of_check_10(kit) -> None:
    sparse = k_reciprocal_jaccard(kit.at_degrees(0, 4, 10, 90, 97, 180), k1=3, k2=2)
    coordinates, found = sparse.tocoo(), np.ones(sparse.shape)
    found[coordinates.row, coordinates.col] = coordinates.data
    for pair, expected in {(0, 1): 0, (0, 2): 0.0107, (3, 4): 0, (3, 5): 0.5978}.items():
        assert found[pair] == pytest.approx(expected, abs=1e-4)
    assert (found[:3, 3:] == 1).all()
    assert dbscan(sparse, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 1, 1, 1]


# Whole runs.

STAGES = [
    {"name": "warm-up", "epochs": 1, "iterations": 2, "cross": False},
    {"name": "hierarchical", "epochs": 1, "iterations": 2},
]


def run_tiny(tmp_path: Path, *plugins: str, **values: object):
    """Two stages of one epoch and two iterations on the tiny dataset. Returns the record and what the user was told."""
    ground = {
        "plugins": plugins,
        "recipe": {"stages": STAGES, "visible_clusters": 3, "infrared_clusters": 3, "instances": 4},
        "evaluation": {"trials": 1},
    }
    extra = {"baseline": Baseline, "chcr": Chcr, "dnc": Dnc, "hpcl": Hpcl, **PLUGINS}
    show = Silent()
    plan = plan_run(toy_settings(**{**ground, **values}), Catalogue([], extra=extra))
    return run_planned(plan, tmp_path, resume=False, force=False, show=show), show


@pytest.mark.parametrize(
    ("plugins", "values", "terms", "notes"),
    [
        (("hil",), {}, {"branch-contrast/visible/main", "mccl/visible/main", "neighbour-contrast/visible/main"}, set()),
        (
            ("hil",),
            {"model": {"backbone": "small-vit"}},
            {f"{loss}/infrared/{b}" for loss in ("branch-contrast", "mccl") for b in ("deep", "shallow")},
            set(),
        ),
        (("chcr", "brst", "mccl"), {}, {"contrast/joint", "mccl/visible/main"}, set()),
        (("dnc", "hil"), {}, {"branch-contrast/visible/main", "mccl/visible-infrared/main"}, set()),
        (("baseline", "mccl"), {"memory": "baseline"}, {"mccl/visible-infrared/main"}, {"mccl"}),
        (("hil", "hpcl"), {}, {"mccl/visible/main", "hard-contrast/visible"}, {"mccl"}),
        (("baseline", "brst", "neighbours"), {}, {"neighbour-contrast/visible/main", "contrast/visible"}, set()),
    ],
    ids=["hil", "small-vit", "chcr+brst+mccl", "dnc+hil", "baseline+mccl", "hil+hpcl", "baseline+brst+neighbours"],
)
def test_method_and_parts_train_and_say_what_they_cannot_do(
    tiny, tmp_path, plugins: tuple[str, ...], values: dict, terms: set[str], notes: set[str]
) -> None:
    record, show = run_tiny(tmp_path, *plugins, **values)
    assert record.skipped_epochs == []
    assert terms <= set(show.rows[-1]["losses"])
    assert not any(name.startswith("mccl") for name in show.rows[0]["losses"])
    said = {warning.split(":")[0] for warning in record.warnings}
    assert said & {"brst", "mccl", "neighbour-contrast", "branch-contrast"} == notes


# The offers.

OFFERS = {
    "hil": {"brst", "multi-centre-memory", "branch-contrast", "mccl", "neighbour-contrast"},
    "brst": {"brst"},
    "mccl": {"multi-centre-memory", "mccl"},
    "neighbours": {"neighbour-contrast"},
}


def loaded(name: str):
    plugin = load(name, PLUGINS[name])
    assert plugin.problem is None
    return plugin


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_offers_its_parts_with_documented_options(name: str) -> None:
    plugin = loaded(name)
    assert plugin.card.paper.year == 2025
    assert {provider.name for provider in plugin.providers} == OFFERS[name]
    for provider in plugin.providers:
        assert callable(provider.load())
        assert all(field.description for field in provider.options.model_fields.values())
        for dataset in ("sysu-mm01", "regdb", "rendered", "something-else"):
            provider.resolve_options(dataset, {})


@pytest.mark.parametrize("name", PLUGINS)
def test_readme_lists_every_option_with_its_default(name: str) -> None:
    readme = (Path(sys.modules["harness_hil"].__file__).parent / "README.md").read_text()
    for provider in loaded(name).providers:
        for option, field in provider.options.model_fields.items():
            assert f"| `{provider.name}.{option}` | {field.default}" in readme


def test_importing_the_plugin_leaves_torch_alone() -> None:
    code = (
        "import sys, harness_hil as p\n"
        "from harness.plugins import load\n"
        "for c in (p.Hil, p.Brst, p.Mccl, p.Neighbours): load(c.__name__, c)\n"
        "p.Hil.harness_recipe('rendered')\n"
        "heavy = {'torch', 'numba', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("dataset", "stages"),
    [("sysu-mm01", [(30, 200), (30, 100)]), ("regdb", [(20, 50), (30, 50)]), ("rendered", [(6, 20), (6, 20)])],
)
def test_recipe_is_that_of_the_spec(dataset: str, stages: list[tuple[int, int]]) -> None:
    recipe = loaded("hil").recipe(dataset)
    assert [(stage.epochs, stage.iterations) for stage in recipe.stages] == stages
    assert [stage.cross for stage in recipe.stages] == [False, True]


def test_rates_and_batches_are_the_published_ones() -> None:
    recipe = loaded("hil").recipe("sysu-mm01")
    rates = {epoch: learning_rate(recipe, epoch, 0) for epoch in (0, 19, 20, 29, 30, 50, 59)}
    assert rates == pytest.approx({0: 3.5e-4, 19: 3.5e-4, 20: 3.5e-5, 29: 3.5e-5, 30: 3.5e-5, 50: 3.5e-5, 59: 3.5e-5})
    assert (recipe.optimiser, recipe.weight_decay, recipe.backbone) == ("sgd", 5e-4, "vit")
    assert (recipe.visible_clusters, recipe.infrared_clusters, recipe.instances) == (8, 8, 16)
    assert (len(recipe.visible_views), len(recipe.infrared_views)) == (2, 1)


def test_presets_of_regdb_are_those_of_the_spec() -> None:
    catalogue = Catalogue([], extra={"baseline": Baseline, **PLUGINS})
    found = {
        dataset: {part.name: part.options for part in select(catalogue, ["hil"], dataset=dataset).parts}
        for dataset in ("sysu-mm01", "regdb")
    }
    assert [options["brst"].rho for options in found.values()] == [0.5, 0.8]
    assert [options["multi-centre-memory"].sub_centres for options in found.values()] == [9, 2]
    assert [options["multi-centre-memory"].first_momentum for options in found.values()] == [None, 0.99]
    assert [options["modality-dbscan"].eps for options in found.values()] == [0.6, 0.3]
    assert all(options["modality-dbscan"].k1 == 30 for options in found.values())


def test_without_a_file_of_weights_the_published_recipe_says_what_to_fetch(tmp_path) -> None:
    plan = plan_run(
        toy_settings(plugins=("hil",), model={"backbone": "vit"}),
        Catalogue([], extra={"baseline": Baseline, **PLUGINS}),
    )
    with pytest.raises(WeightsError, match=r"vit_base_ics_cfs_lup\.pth"):
        plan.backbone.make(0)
