"""Values that parts exchange: partitions, pseudo-labels and their derivation, batches, banks, embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from harness.contracts import (
    OUTLIER,
    Bank,
    Batch,
    Draw,
    Embeddings,
    Partition,
    PseudoLabels,
    TrainIndex,
    compact,
    follow,
)
from harness.errors import ContractError


def index_of(visible: int, infrared: int) -> TrainIndex:
    modality = torch.tensor([0] * visible + [1] * infrared)
    return TrainIndex(modality, modality + 1)


def tensor(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


TRAIN = index_of(4, 3)


class TestPartition:
    def test_counts_clusters_and_their_images(self) -> None:
        partition = Partition(tensor(1, 0, -1, 1, 2))
        assert partition.num_clusters == 3
        assert partition.sizes.tolist() == [1, 2, 1]

    def test_may_hold_outliers_only(self) -> None:
        partition = Partition(tensor(-1, -1))
        assert partition.num_clusters == 0
        assert partition.sizes.tolist() == []

    @pytest.mark.parametrize(
        ("labels", "complaint"),
        [
            ([0, 1], "list"),
            (np.array([0, 1]), "ndarray"),
            (torch.tensor([0, 1], dtype=torch.int32), "torch.int32"),
            (torch.tensor([0.0, 1.0]), "torch.float32"),
            (torch.tensor([[0, 1]]), r"\(1, 2\)"),
            (tensor(0, -2), "-2"),
            (tensor(0, 2), "consecutive"),
        ],
    )
    def test_refuses_labels_that_are_not_consecutive_int64_ids(self, labels, complaint: str) -> None:
        with pytest.raises(ContractError, match=complaint):
            Partition(labels)

    def test_cannot_be_reassigned(self) -> None:
        with pytest.raises(AttributeError):
            Partition(tensor(0)).labels = tensor(1)  # type: ignore[misc]


class TestCompact:
    def test_renumbers_in_the_order_of_the_old_ids(self) -> None:
        labels, old_to_new = compact(tensor(5, 2, -1, 5))
        assert labels.tolist() == [1, 0, -1, 1]
        assert old_to_new.tolist() == [-1, -1, 0, -1, -1, 1]

    def test_dissolves_small_clusters(self) -> None:
        labels, old_to_new = compact(tensor(0, 1, 1, 2, 2, 2), min_size=2)
        assert labels.tolist() == [-1, 0, 0, 1, 1, 1]
        assert old_to_new.tolist() == [-1, 0, 1]

    def test_takes_labels_without_any_cluster(self) -> None:
        labels, old_to_new = compact(tensor(-1, -1))
        assert labels.tolist() == [-1, -1]
        assert old_to_new.numel() == 0

    def test_follow_keeps_outliers_even_when_there_is_nothing_to_follow(self) -> None:
        assert follow(tensor(0, -1, 1), tensor(7, -1)).tolist() == [7, -1, -1]
        assert follow(tensor(0, -1), tensor()).tolist() == [-1, -1]


class TestPseudoLabels:
    @pytest.mark.parametrize(
        ("partitions", "links", "complaint"),
        [
            ({}, {}, "at least one"),
            ({"joint": tensor(0, 0)}, {}, "2 images; the training set has 7"),
            ({"visible": tensor(0, 0, 0, 0, 0, -1, -1)}, {}, "other modality"),
            ({"infrared": tensor(0, -1, -1, -1, 0, 0, 0)}, {}, "other modality"),
            ({"joint": tensor(0, 0, 0, 0, 2, 2, 2)}, {}, "consecutive"),
            ({"joint": tensor(*[0] * 7)}, {("joint", "mine"): tensor(0)}, "were not given"),
            ({"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): tensor(1)}, "outside the 1 clusters"),
            ({"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): tensor(-2)}, "outside the 1 clusters"),
            ({"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): tensor(0, 0)}, r"tensor \[1\]"),
            ({"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): torch.tensor([0.0])}, "torch.float32"),
            ({"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): [0]}, "list"),
        ],
    )
    def test_refuses_what_breaks_the_contract(self, partitions, links, complaint: str) -> None:
        with pytest.raises(ContractError, match=complaint):
            PseudoLabels(TRAIN, partitions, links)

    def test_refuses_a_draw_of_a_partition_that_is_not_there(self) -> None:
        with pytest.raises(ContractError, match="'nowhere'"):
            PseudoLabels(TRAIN, {"joint": tensor(*[0] * 7)}, draws=(Draw(("nowhere",)),))

    def test_restricts_a_joint_partition_to_the_worked_example(self) -> None:
        labels = PseudoLabels(TRAIN, {"joint": tensor(0, 2, 2, -1, 1, 2, 1)})
        assert labels["visible"].labels.tolist() == [0, 1, 1, -1, -1, -1, -1]
        assert labels["infrared"].labels.tolist() == [-1, -1, -1, -1, 0, 1, 0]
        assert labels.link("visible", "joint").tolist() == [0, 2]
        assert labels.link("infrared", "joint").tolist() == [1, 2]
        assert labels.link("joint", "visible").tolist() == [0, -1, 1]
        assert labels.link("visible", "infrared").tolist() == [-1, 1]
        assert labels.link("infrared", "visible").tolist() == [-1, 1]

    def test_joins_linked_partitions_to_the_worked_example(self) -> None:
        labels = PseudoLabels(
            TRAIN,
            {"visible": tensor(0, 1, 2, -1, -1, -1, -1), "infrared": tensor(-1, -1, -1, -1, 0, 1, -1)},
            {("visible", "infrared"): tensor(1, -1, 1)},
        )
        joint = labels["joint"].labels
        assert same_groups(joint, tensor(0, 1, 0, -1, 2, 0, -1))
        assert follow(labels["visible"].labels, labels.link("visible", "joint"))[:4].equal(joint[:4])
        assert follow(labels["infrared"].labels, labels.link("infrared", "joint"))[4:].equal(joint[4:])

    def test_has_no_joint_partition_without_links(self) -> None:
        labels = PseudoLabels(
            TRAIN, {"visible": tensor(0, 0, 0, 0, -1, -1, -1), "infrared": tensor(*[-1] * 4, 0, 0, 0)}
        )
        assert "joint" not in labels
        assert labels.link("visible", "infrared") is None
        assert labels.available == ("visible", "infrared")
        with pytest.raises(KeyError, match="visible, infrared"):
            labels["joint"]

    def test_the_order_of_questions_does_not_change_the_answers(self) -> None:
        def fresh() -> PseudoLabels:
            return PseudoLabels(TRAIN, {"joint": tensor(0, 2, 2, -1, 1, 2, 1)})

        asked = fresh()
        _ = asked["infrared"], asked["visible"]
        for pair in [("visible", "infrared"), ("joint", "infrared"), ("infrared", "joint")]:
            assert fresh().link(*pair).equal(asked.link(*pair))

    def test_draws_from_each_kind_that_was_given(self) -> None:
        visible, infrared, joint = tensor(0, 0, 0, 0, -1, -1, -1), tensor(*[-1] * 4, 0, 0, 0), tensor(*[0] * 7)
        both = {"visible": visible, "infrared": infrared}
        assert PseudoLabels(TRAIN, both).draws == (Draw(("visible", "infrared")),)
        assert PseudoLabels(TRAIN, {"joint": joint}).draws == (Draw(("joint",)),)
        assert PseudoLabels(TRAIN, {**both, "joint": joint}).draws == (Draw(("visible", "infrared")), Draw(("joint",)))
        assert PseudoLabels(TRAIN, {"mine": joint}).draws == (Draw(("mine",)),)
        assert PseudoLabels(TRAIN, {"joint": joint}, draws=(Draw(("visible",)),)).draws == (Draw(("visible",)),)

    def test_views_of_a_draw_hold_what_derives_from_it(self) -> None:
        joint = PseudoLabels(TRAIN, {"joint": tensor(*[0] * 7)})
        assert set(joint.views(joint.draws[0])) == {"joint", "visible", "infrared"}
        pair = {"visible": tensor(0, 0, 0, 0, -1, -1, -1), "infrared": tensor(*[-1] * 4, 0, 0, 0)}
        linked = PseudoLabels(TRAIN, pair, {("infrared", "visible"): tensor(0)})
        assert set(linked.views(linked.draws[0])) == {"visible", "infrared", "joint"}
        both = PseudoLabels(TRAIN, {**pair, "joint": tensor(*[0] * 7)})
        assert set(both.views(both.draws[0])) == {"visible", "infrared"}
        assert set(both.views(both.draws[1])) == {"joint"}

    def test_replacing_a_partition_drops_its_links_and_leaves_the_original(self) -> None:
        whole = tensor(*[0] * 7)
        before = PseudoLabels(TRAIN, {"a": whole, "b": whole}, {("a", "b"): tensor(0)}, draws=(Draw(("a",)),))
        after = before.replace({"b": tensor(0, 1, 1, 1, 1, 1, 1)})
        assert after.links == {}
        assert after["b"].num_clusters == 2
        assert after.draws == before.draws
        assert before.link("a", "b").tolist() == [0]
        assert before["b"].num_clusters == 1

    def test_links_between_restrictions_stand_in_for_those_through_the_joint_partition(self) -> None:
        before = PseudoLabels(TRAIN, {"joint": tensor(0, 1, 1, 1, 0, 1, 1)})
        after = before.replace(links={("visible", "infrared"): tensor(1, 0)})
        assert after.given == ("joint",)
        assert after.draws == before.draws
        assert after.link("visible", "infrared").tolist() == [1, 0]
        assert after.link("infrared", "visible").tolist() == before.link("infrared", "visible").tolist()

    def test_links_between_restrictions_follow_when_images_are_dropped_and_end_when_the_joint_one_is_replaced(
        self,
    ) -> None:
        joint = PseudoLabels(TRAIN, {"joint": tensor(0, 1, 1, 2, 0, 1, 2)})
        linked = joint.replace(links={("visible", "infrared"): tensor(2, 0, 1)})
        rows = torch.tensor([True, False, False, False, True, False, False])
        assert linked.drop(rows).link("visible", "infrared").tolist() == [-1, 0]
        assert linked.replace({"joint": tensor(0, 0, 0, 0, 0, 0, 0)}).links == {}

    def test_dropped_images_leave_every_partition_and_links_follow(self) -> None:
        labels = PseudoLabels(
            TRAIN,
            {"visible": tensor(0, 1, 1, 2, -1, -1, -1), "infrared": tensor(-1, -1, -1, -1, 0, 1, 1)},
            {("visible", "infrared"): tensor(1, 0, 1), ("infrared", "visible"): tensor(1, 2)},
        )
        rows = torch.tensor([True, False, False, False, True, False, False])
        after = labels.drop(rows)
        assert after["visible"].labels.tolist() == [-1, 0, 0, 1, -1, -1, -1]
        assert after["infrared"].labels.tolist() == [-1, -1, -1, -1, -1, 0, 0]
        assert after.link("visible", "infrared").tolist() == [-1, 0]
        assert after.link("infrared", "visible").tolist() == [1]
        small = labels.drop(rows, min_size=2)
        assert small["visible"].labels.tolist() == [-1, 0, 0, -1, -1, -1, -1]
        assert small.link("infrared", "visible").tolist() == [-1]

    def test_dropping_everything_leaves_empty_partitions(self) -> None:
        labels = PseudoLabels(TRAIN, {"a": tensor(*[0] * 7), "b": tensor(*[0] * 7)}, {("a", "b"): tensor(0)})
        after = labels.drop(torch.ones(7, dtype=torch.bool))
        assert after["a"].num_clusters == 0
        assert after.link("a", "b").tolist() == []


def same_groups(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two labellings agree up to the names of the clusters, outliers included."""
    together = (a[:, None] == a[None, :]) & (a >= 0)[:, None]
    return bool((((b[:, None] == b[None, :]) & (b >= 0)[:, None]) == together).all() and ((a < 0) == (b < 0)).all())


@st.composite
def joint_labels(draw: st.DrawFn) -> PseudoLabels:
    visible, infrared = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    raw = draw(st.lists(st.integers(-1, 5), min_size=visible + infrared, max_size=visible + infrared))
    return PseudoLabels(index_of(visible, infrared), {"joint": compact(tensor(*raw))[0]})


@st.composite
def linked_labels(draw: st.DrawFn) -> PseudoLabels:
    visible, infrared = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    train = index_of(visible, infrared)
    raw = draw(st.lists(st.integers(-1, 4), min_size=visible + infrared, max_size=visible + infrared))
    parts = {
        "visible": compact(torch.where(train.visible, tensor(*raw), OUTLIER))[0],
        "infrared": compact(torch.where(train.infrared, tensor(*raw), OUTLIER))[0],
    }
    counts = {name: Partition(labels).num_clusters for name, labels in parts.items()}
    directions = draw(
        st.lists(st.sampled_from([("visible", "infrared"), ("infrared", "visible")]), min_size=1, unique=True)
    )
    links = {
        (a, b): tensor(*draw(st.lists(st.integers(-1, counts[b] - 1), min_size=counts[a], max_size=counts[a])))
        for a, b in directions
    }
    return PseudoLabels(train, parts, links)


class TestDerivation:
    @settings(max_examples=100, deadline=None)
    @given(joint_labels())
    def test_restrictions_carry_the_joint_clusters_and_nothing_else(self, labels: PseudoLabels) -> None:
        joint, train = labels["joint"].labels, labels.train
        for name, scope in (("visible", train.visible), ("infrared", train.infrared)):
            own = labels[name].labels
            assert bool((own[~scope] == OUTLIER).all())
            assert same_groups(own[scope], joint[scope])
            assert follow(own, labels.link(name, "joint")).equal(torch.where(scope, joint, OUTLIER))
            assert follow(torch.where(scope, joint, OUTLIER), labels.link("joint", name)).equal(own)
            there_and_back = follow(labels.link(name, "joint"), labels.link("joint", name))
            assert there_and_back.tolist() == list(range(labels[name].num_clusters))

    @settings(max_examples=100, deadline=None)
    @given(joint_labels())
    def test_joint_labels_come_back_from_their_linked_restrictions(self, labels: PseudoLabels) -> None:
        link = labels.link("visible", "infrared")
        again = PseudoLabels(
            labels.train,
            {name: labels[name] for name in ("visible", "infrared")},
            {("visible", "infrared"): link},
        )
        assert same_groups(again["joint"].labels, labels["joint"].labels)

    @settings(max_examples=100, deadline=None)
    @given(linked_labels())
    def test_the_union_joins_exactly_what_links_connect(self, labels: PseudoLabels) -> None:
        parent = {(name, k): (name, k) for name in ("visible", "infrared") for k in range(labels[name].num_clusters)}

        def root(node):
            return node if parent[node] == node else root(parent[node])

        for (source, target), link in labels.links.items():
            for k, to in enumerate(link.tolist()):
                if to >= 0:
                    parent[root((source, k))] = root((target, to))
        names = ["visible" if kind == 0 else "infrared" for kind in labels.train.modality.tolist()]
        nodes = [(name, int(labels[name].labels[row])) for row, name in enumerate(names)]
        roots = [root(node) if node[1] >= 0 else None for node in nodes]
        ids = {found: number for number, found in enumerate(dict.fromkeys(r for r in roots if r is not None))}
        oracle = tensor(*[OUTLIER if r is None else ids[r] for r in roots])
        assert same_groups(labels["joint"].labels, oracle)
        for name in ("visible", "infrared"):
            carried = follow(labels[name].labels, labels.link(name, "joint"))
            scope = labels.train.visible if name == "visible" else labels.train.infrared
            assert carried.equal(torch.where(scope, labels["joint"].labels, OUTLIER))

    @settings(max_examples=60, deadline=None)
    @given(linked_labels(), st.data())
    def test_dropping_images_commutes_with_joining(self, labels: PseudoLabels, data: st.DataObject) -> None:
        size = len(labels.train)
        rows = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        after = labels.drop(rows)
        for name in ("visible", "infrared"):
            expected = torch.where(rows, OUTLIER, labels[name].labels)
            assert same_groups(after[name].labels, expected)
            assert after[name].labels.equal(compact(expected)[0])
        for (source, target), link in labels.links.items():
            before = follow(labels[source].labels, link)
            now = follow(after[source].labels, after.link(source, target))
            kept = (now >= 0) & ~rows
            alive = [bool(((labels[target].labels == k) & ~rows).any()) for k in before[kept].tolist()]
            assert all(alive)


def batch_of(labels: PseudoLabels, rows: list[int]) -> Batch:
    index, draw = tensor(*rows), labels.draws[0]
    return Batch(
        index=index,
        modality=labels.train.modality[index],
        camera=labels.train.camera[index],
        view=torch.zeros_like(index),
        labels={name: partition.labels[index] for name, partition in labels.views(draw).items()},
        draw=draw,
        pseudo_labels=labels,
    )


class TestBatch:
    def test_carries_labels_over_links(self) -> None:
        batch = batch_of(PseudoLabels(TRAIN, {"joint": tensor(0, 2, 2, -1, 1, 2, 1)}), [0, 1, 3, 5])
        assert len(batch) == 4
        assert batch.linked("visible", "infrared").tolist() == [-1, 1, -1, -1]
        assert batch.linked("infrared", "joint").tolist() == [-1, -1, -1, 2]

    def test_says_none_where_nothing_is_linked(self) -> None:
        labels = PseudoLabels(
            TRAIN, {"visible": tensor(0, 0, 0, 0, -1, -1, -1), "infrared": tensor(*[-1] * 4, 0, 0, 0)}
        )
        assert batch_of(labels, [0, 4]).linked("visible", "infrared") is None
        assert batch_of(labels, [0, 4]).linked("joint", "visible") is None


class TestBank:
    def test_of_centroids_has_one_row_per_cluster(self) -> None:
        bank = Bank.of_centroids(torch.eye(3))
        assert bank.single
        assert bank.num_clusters == 3
        assert bank.similarities(torch.eye(3)[:2], tensor(0, 1)).tolist() == [[1, 0, 0], [0, 1, 0]]

    def test_counts_clusters_not_rows(self) -> None:
        bank = Bank(torch.eye(4), tensor(0, 0, 1, -1))
        assert not bank.single
        assert bank.num_clusters == 2
        assert Bank(torch.zeros(0, 4), tensor()).num_clusters == 0

    def test_a_permuted_bank_is_not_the_single_form(self) -> None:
        assert not Bank(torch.eye(2), tensor(1, 0)).single

    def test_a_memory_may_bring_its_own_similarity(self) -> None:
        bank = Bank.of_centroids(torch.eye(2), similarity=lambda queries, labels: labels[:, None] + torch.zeros(1, 2))
        assert bank.similarities(torch.eye(2), tensor(3, 4)).tolist() == [[3, 3], [4, 4]]


class TestEmbeddings:
    def test_normalises_each_embedding_once(self) -> None:
        raw = torch.tensor([[3.0, 4.0]], requires_grad=True)
        embeddings = Embeddings({"main": raw, "other": 2 * raw})
        assert_close(embeddings.unit(), torch.tensor([[0.6, 0.8]]))
        assert embeddings.unit() is embeddings.unit()
        assert embeddings.unit().requires_grad
        assert embeddings.main is raw
        assert list(embeddings) == ["main", "other"]

    def test_detached_values_carry_no_gradient(self) -> None:
        embeddings = Embeddings({"main": torch.ones(1, 2, requires_grad=True)})
        embeddings.unit()
        assert not embeddings.detach().main.requires_grad
        assert not embeddings.detach().unit().requires_grad


def test_the_training_index_tells_modalities_apart() -> None:
    assert len(TRAIN) == 7
    assert TRAIN.num_visible == 4
    assert TRAIN.visible.tolist() == [True] * 4 + [False] * 3
    assert TRAIN.infrared.tolist() == [False] * 4 + [True] * 3
