"""PCLHD's parts, against the behavioural checks of pclhd.md 7."""

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
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

import harness.engine.train
from harness import PluginCard, hookimpl
from harness.clustering.centroids import balanced_means
from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import modality_balanced
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.contracts import OUTLIER, Bank, BankKind, Draw, Embeddings, Partition, PseudoLabels
from harness.engine.run import plan_run, run_planned
from harness.engine.teacher import make_teacher, update_teacher
from harness.errors import ContractError
from harness.evaluation.metrics import score_similarity
from harness.matching import progressive_graph_matching
from harness.plugins import Catalogue, load, select
from harness_baseline import Baseline, ClusterMemoryOptions, Pgm
from harness_baseline.memory import ClusterMemory
from harness_dmic import Dnc
from harness_pclhd import Dpcl, Hpcl, JointBranch, Pclhd, PclhdPaper
from harness_pclhd.dynamic import DynamicContrastLoss, dynamic_contrast, random_members, replace_members_
from harness_pclhd.hard import HardContrastLoss, hybrid_contrast
from harness_pclhd.joint import SINGLE, split_by_modality
from harness_pclhd.joint import JointBranch as JointBranchRefiner
from harness_pclhd.memory import HardMemory
from harness_pclhd.options import (
    DynamicContrastOptions,
    HardContrastOptions,
    HardMemoryOptions,
    JointBranchOptions,
    PaperHardMemoryOptions,
)
from tests.plugins import pclhd_oracle as oracle
from toy_parts import TOY_BACKBONE, Silent, toy_settings

PLUGINS = {
    "pclhd": Pclhd,
    "pclhd-paper": PclhdPaper,
    "hpcl": Hpcl,
    "dpcl": Dpcl,
    "joint-branch": JointBranch,
}
GRADS = pytest.mark.parametrize("memory_grad", ["clean", "released"])
EYE = [[1.0, 0.0], [0.0, 1.0]]


def close(found: Tensor, expected: object, atol: float = 1e-4) -> None:
    assert_close(found.detach().float(), torch.as_tensor(expected, dtype=torch.float32), atol=atol, rtol=0)


class Bench:
    """K visible and as many infrared clusters, one image each, with given centroids and hard prototypes; linked k to k.

    Batches are made of raw embeddings and labels; rows of the index mean nothing.
    """

    def __init__(
        self,
        kit: SimpleNamespace,
        centroids: object,
        hard: object = None,
        *,
        memory: dict | None = None,
        **epoch: object,
    ) -> None:
        self.kit = kit
        rows = torch.as_tensor(centroids, dtype=torch.float32)
        count, size = rows.shape
        self.train = kit.train_index(count, count)
        own, absent = torch.arange(count), torch.full((count,), OUTLIER)
        links = {("visible", "infrared"): own, ("infrared", "visible"): own}
        partitions = {"visible": torch.cat([own, absent]), "infrared": torch.cat([absent, own])}
        self.labels = PseudoLabels(self.train, partitions, links)
        self.epoch = Noted(kit.Epoch(self.train, rows.repeat(2, 1), **epoch))
        self.memory = HardMemory(HardMemoryOptions(**(memory or {})), kit.setup(self.train, size))
        self.memory.build(self.epoch, self.labels)
        if hard is not None:
            self.memory.vectors("visible")[count:] = torch.as_tensor(hard, dtype=torch.float32)

    def loss(self, **options: object) -> HardContrastLoss:
        return HardContrastLoss(HardContrastOptions(**options), self.memory.setup)

    def batch(self, visible: list[int], infrared: list[int]):
        labels = {
            "visible": torch.tensor(visible + [OUTLIER] * len(infrared)),
            "infrared": torch.tensor([OUTLIER] * len(visible) + infrared),
        }
        modality = torch.tensor([0] * len(visible) + [1] * len(infrared))
        made = self.kit.batch(self.labels, torch.zeros(len(modality), dtype=torch.int64))
        return type(made)(made.index, modality, modality, made.view, labels, made.draw, self.labels)

    def step(self, raw: Tensor, visible: list[int], infrared: list[int], **options: object) -> dict[str, Tensor]:
        """Terms, backward, update. Returns the terms."""
        batch, embeddings = self.batch(visible, infrared), Embeddings({"main": raw})
        terms = self.loss(**options).terms(batch, embeddings, self.memory, self.epoch)
        sum(terms.values()).backward()
        self.memory.update(batch, embeddings.detach())
        return terms


class Noted:
    """An epoch that keeps what parts note, and has features of a teacher of its own."""

    def __init__(self, epoch, teacher: Tensor | None = None) -> None:
        self._epoch, self._teacher, self.notes = epoch, teacher, []

    def __getattr__(self, name: str):
        return getattr(self._epoch, name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def features(self, *, encoder: str = "online", embedding: str = "main", view: str = "plain") -> Tensor:
        if encoder == "teacher" and self._teacher is not None:
            return self._teacher
        return self._epoch.features(embedding=embedding, view=view)


def raw_rows(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).requires_grad_()


# Check 1: hybrid loss and update.

HARD_1 = [[0.6, 0.8], [-0.6, 0.8]]


@GRADS
def test_hybrid_loss_gradient_and_update_are_those_of_check_1(kit, memory_grad: str) -> None:
    bench = Bench(kit, EYE, HARD_1, memory={"memory_grad": memory_grad})
    raw = raw_rows((2, 0), (0.8, 0.6), (0.6, 0.8), (0, 3))
    terms = bench.step(raw, [0, 0, 0, 1], [], temperature=0.5, cross_weight=0)
    close(terms["hard-contrast/visible"], 0.251163)
    close(raw.grad, [[0, 0.014900], [-0.098085, 0.130780], [-0.204409, 0.153307], [0.059934, 0]])
    close(bench.memory.bank("visible").vectors, [[0.890043, 0.455876], [0, 1], [0.6, 0.8], [-0.061110, 0.998131]])


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 0.251163), (0.05, 0.491181)])
def test_hybrid_loss_of_check_1_at_both_temperatures(kit, temperature: float, expected: float) -> None:
    bank, raw = Bench(kit, EYE, HARD_1).memory.bank("visible"), raw_rows((2, 0), (0.8, 0.6), (0.6, 0.8), (0, 3))
    queries, labels = normalize(raw, dim=1), torch.tensor([0, 0, 0, 1])
    close(hybrid_contrast(bank, queries, labels, options=HardContrastOptions(temperature=temperature)), expected)
    halves = {
        name: HardContrastOptions(temperature=0.5, margin=0, hard_weight=name == "hard", centroid_weight=name != "hard")
        for name in ("hard", "centroid")
    }
    close(hybrid_contrast(bank, queries, labels, options=halves["centroid"]), 0.419972)
    close(hybrid_contrast(bank, queries, labels, options=halves["hard"]), 0.282355)


# Check 2: the farthest member is chosen with the old centroid.


@GRADS
def test_farthest_image_is_chosen_by_the_centroid_before_the_update(kit, memory_grad: str) -> None:
    bench = Bench(kit, [[1.0, 0.0]], memory={"memory_grad": memory_grad})
    bench.step(raw_rows((1, 0), *[(0.6, 0.8)] * 3), [0] * 4, [], cross_weight=0)
    close(bench.memory.bank("visible").vectors, [[0.803947, 0.594701], [0.664364, 0.747409]])


# Check 3: the margin is of the batch.


def gradient_of(bench: Bench, rows: Tensor, labels: list[int], **options: object) -> Tensor:
    raw = rows.clone().requires_grad_()
    terms = bench.loss(temperature=0.5, cross_weight=0, **options).terms(
        bench.batch(labels, []), Embeddings({"main": raw}), bench.memory, bench.epoch
    )
    return torch.autograd.grad(terms["hard-contrast/visible"], raw)[0]


def test_below_the_margin_only_the_hard_half_of_check_3_is_left(kit) -> None:
    bench, raw = Bench(kit, EYE), torch.tensor([[1.0, 0.0]])
    terms = bench.loss(temperature=0.5, cross_weight=0).terms(
        bench.batch([0], []), Embeddings({"main": raw}), bench.memory, bench.epoch
    )
    close(terms["hard-contrast/visible"], 0.063464)
    close(gradient_of(bench, raw, [0]), gradient_of(bench, raw, [0], centroid_weight=0), atol=0)


@pytest.mark.parametrize(("mean", "silent"), [(0.19, True), (0.21, False)])
def test_margin_counts_the_mean_of_the_batch_not_its_images(kit, mean: float, silent: bool) -> None:
    bench = Bench(kit, EYE)
    # An image at this angle makes the mean with the one at 0 degrees, whose contrast is 0.126928.
    gap = 0.5 * np.log(np.exp(2 * mean - 0.126928) - 1)
    angle = np.degrees(np.arccos(-gap / np.sqrt(2))) - 45
    rows = kit.at_degrees(0, angle)
    value = float(nn.functional.cross_entropy(rows @ torch.eye(2) / 0.5, torch.zeros(2, dtype=torch.int64)))
    assert value == pytest.approx(mean, abs=1e-5)
    both, hard = gradient_of(bench, rows, [0, 0]), gradient_of(bench, rows, [0, 0], centroid_weight=0)
    assert torch.equal(both, hard) == silent


# Check 4: dynamic prototypes.

BANK_4 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-0.8, 0.6]]])


def test_dynamic_contrast_is_that_of_check_4() -> None:
    storage_order = BANK_4.reshape(-1, 2)
    close(storage_order, [[1, 0], [0, 1], [0.6, 0.8], [-0.8, 0.6]])
    queries, labels = torch.eye(2), torch.tensor([0, 1])
    value = dynamic_contrast(BANK_4, queries, labels, temperature=0.5)
    each = [dynamic_contrast(BANK_4, queries[i : i + 1], labels[i : i + 1], temperature=0.5) for i in range(2)]
    close(torch.stack(each), [0.263282, 0.913015])
    close(value, 0.588149)


class DynamicBench(Bench):
    """Two visible clusters; the teacher sees its images elsewhere than the encoder does."""

    def __init__(self, kit: SimpleNamespace, *, dpcl_query: str, **epoch: object) -> None:
        super().__init__(kit, EYE, **epoch)
        self.epoch = Noted(self.epoch, teacher=3 * kit.at_degrees(10, 100, 20, 110))
        self.part = DynamicContrastLoss(DynamicContrastOptions(dpcl_query=dpcl_query, samples=3), self.memory.setup)
        self.part.begin(self.epoch, self.labels, self.memory)

    def dynamic_step(self, raw: Tensor, teacher: Tensor, visible: list[int]) -> dict[str, Tensor]:
        batch = self.batch(visible, [])
        embeddings = Embeddings({"main": raw}, teacher=lambda: {"main": teacher})
        terms = self.part.terms(batch, embeddings, self.memory, self.epoch)
        total = sum(terms.values()) + raw.sum()
        total.backward()
        self.part.update(batch, embeddings.detach())
        return terms


def test_dynamic_prototypes_start_as_unit_images_seen_by_the_teacher(kit) -> None:
    bench = DynamicBench(kit, dpcl_query="online")
    close(bench.part._banks["visible"], kit.at_degrees(10, 100).expand(3, 2, 2), atol=1e-6)
    close(bench.part._banks["infrared"], kit.at_degrees(20, 110).expand(3, 2, 2), atol=1e-6)


def test_queries_of_the_teacher_train_nothing_and_leave_the_prototypes(kit) -> None:
    bench, raw = DynamicBench(kit, dpcl_query="ema"), raw_rows((1, 0), (0, 1))
    before = bench.part._banks["visible"].clone()
    terms = bench.dynamic_step(raw, 2 * kit.at_degrees(30, 80), [0, 1])
    assert not terms["dynamic-contrast/visible"].requires_grad
    expected = dynamic_contrast(before, kit.at_degrees(30, 80), torch.tensor([0, 1]), temperature=0.05)
    close(terms["dynamic-contrast/visible"], expected)
    assert torch.equal(raw.grad, torch.ones(2, 2))
    assert torch.equal(bench.part._banks["visible"], before)
    assert "train nothing" in bench.epoch.notes[0]


def test_queries_of_the_encoder_train_and_the_teachers_replace_the_prototypes(kit) -> None:
    bench, raw = DynamicBench(kit, dpcl_query="online"), raw_rows((1, 0.5), (2, 0))
    terms = bench.dynamic_step(raw, 2 * kit.at_degrees(30, 40), [0, 0])
    assert terms["dynamic-contrast/visible"].requires_grad
    assert not torch.equal(raw.grad, torch.ones(2, 2))
    after = bench.part._banks["visible"]
    for prototype in after[:, 0]:
        assert any(torch.allclose(prototype, row, atol=1e-6) for row in kit.at_degrees(30, 40))
    close(after[:, 1], kit.at_degrees(100).expand(3, 2), atol=1e-6)
    close(bench.part._banks["infrared"], kit.at_degrees(20, 110).expand(3, 2, 2), atol=1e-6)
    assert bench.epoch.notes == []


def test_dynamic_prototypes_wait_for_the_second_stage_and_not_for_one_that_never_comes(kit) -> None:
    silent = DynamicBench(kit, dpcl_query="online", stages=2, cross=False)
    assert silent.part._banks == {}
    assert set(DynamicBench(kit, dpcl_query="online", stages=1, cross=False).part._banks) == {"visible", "infrared"}


def test_dynamic_prototypes_without_visible_or_infrared_clusters_say_so(kit) -> None:
    train = kit.train_index(2, 2)
    labels = PseudoLabels(train, {"visible": torch.full((4,), OUTLIER), "infrared": torch.full((4,), OUTLIER)})
    epoch = Noted(kit.Epoch(train, torch.eye(4)))
    part = DynamicContrastLoss(DynamicContrastOptions(), kit.setup(train, 4))
    part.begin(epoch, labels, None)
    assert epoch.notes == ["no term, because there are no visible or infrared clusters."]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 1000))
def test_dynamic_draws_are_members_of_their_cluster(labels: list[int], samples: int, seed: int) -> None:
    ids = sorted(set(labels) - {-1})
    partition = Partition(torch.tensor([ids.index(label) if label >= 0 else -1 for label in labels]))
    drawn = random_members(partition, samples, rng=np.random.default_rng(seed))
    assert drawn.shape == (samples, len(ids))
    assert torch.equal(partition.labels[drawn], torch.arange(len(ids)).expand(samples, -1))


def test_dynamic_draws_give_every_member_the_same_chance_again_and_again() -> None:
    partition = Partition(torch.tensor([0, -1, 0, 1, 0]))
    drawn = random_members(partition, 3000, rng=np.random.default_rng(0))
    counts = torch.bincount(drawn[:, 0], minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert int(counts[[0, 2, 4]].min()) > 900
    assert set(drawn[:, 1].tolist()) == {3}


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_replacement_repeats_no_query_where_there_are_enough(samples: int) -> None:
    bank, queries = torch.zeros(samples, 3, 4), torch.arange(24.0).reshape(6, 4)
    labels = torch.tensor([0, 2, 0, 0, 2, 0])
    replace_members_(bank, queries, labels, generator=torch.Generator().manual_seed(1))
    assert torch.equal(bank[:, 1], torch.zeros(samples, 4))
    for cluster in (0, 2):
        chosen = [int(row[0]) // 4 for row in bank[:, cluster]]
        assert set(chosen) <= set(torch.nonzero(labels == cluster).flatten().tolist())
        if int((labels == cluster).sum()) >= samples:
            assert len(set(chosen)) == samples


# Check 5: the order of updates.


@pytest.mark.parametrize(
    ("memory_grad", "visible"), [("released", [-0.162246, 0.216328]), ("clean", [-0.378139, 0.504186])]
)
def test_order_of_updates_gives_the_gradients_of_check_5(kit, memory_grad: str, visible: list[float]) -> None:
    # Odd epochs: infrared images against the visible memory.
    bench = Bench(kit, EYE, memory={"memory_grad": memory_grad}, epoch=1)
    batch, raw = bench.batch([0], [0]), raw_rows((0.8, 0.6), (0.6, 0.8))
    embeddings = Embeddings({"main": raw})
    terms = bench.loss(temperature=1.0).terms(batch, embeddings, bench.memory, bench.epoch)
    (terms["hard-contrast/visible"] + terms["hard-contrast/infrared-to-visible"]).backward()
    bench.memory.update(batch, embeddings.detach())
    close(raw.grad, [visible, [-0.153954, 0.115465]])
    close(bench.memory.bank("visible").vectors[[0, 2]], [[0.787860, 0.615854]] * 2)


@pytest.mark.parametrize("epoch", [0, 1], ids=["even", "odd"])
@pytest.mark.parametrize("seed", range(4))
@GRADS
def test_a_whole_step_equals_the_released_loops(kit, memory_grad: str, seed: int, epoch: int) -> None:
    rng = np.random.default_rng(seed)
    centroids = np.stack([oracle.unit(row) for row in rng.normal(size=(4, 6))])
    raw = rng.normal(size=(20, 6)) * rng.uniform(0.5, 3, size=(20, 1))
    visible, infrared = rng.integers(0, 4, 12).tolist(), rng.integers(0, 4, 8).tolist()
    bench = Bench(kit, centroids, memory={"memory_grad": memory_grad}, epoch=epoch)
    embeddings = torch.tensor(raw, dtype=torch.float32, requires_grad=True)
    terms = bench.step(embeddings, visible, infrared, temperature=0.3)

    banks = {name: np.concatenate([centroids, centroids]) for name in ("visible", "infrared")}
    settings = {"temperature": 0.3}
    across = ("visible", raw[12:], infrared) if epoch else ("infrared", raw[:12], visible)
    expected = [
        oracle.Term(banks["infrared"], raw[12:], infrared, **settings),
        oracle.Term(banks["visible"], raw[:12], visible, **settings),
        oracle.Term(banks[across[0]], across[1], across[2], weight=0.25, **settings),
    ]
    gradients = oracle.step(expected, momentum=0.1, released=memory_grad == "released")
    crossing = "infrared-to-visible" if epoch else "visible-to-infrared"
    for name, term in zip(("infrared", "visible", crossing), expected, strict=True):
        close(terms[f"hard-contrast/{name}"], term.weight * term.value)
    total = np.zeros_like(raw)
    total[12:], total[:12] = gradients[0], gradients[1]
    total[slice(12, None) if epoch else slice(0, 12)] += gradients[2]
    close(embeddings.grad, total)
    for name, bank in banks.items():
        close(bench.memory.bank(name).vectors, bank)


@pytest.mark.parametrize("hard_k", [1, 2, 9])
def test_hard_prototypes_follow_the_mean_of_the_farthest(kit, hard_k: int) -> None:
    rng = np.random.default_rng(3)
    centroids = np.stack([oracle.unit(row) for row in rng.normal(size=(2, 5))])
    raw, labels = rng.normal(size=(7, 5)), [0, 1, 0, 0, 1, 0, 0]
    bench = Bench(kit, centroids, memory={"hard_k": hard_k})
    bench.step(torch.tensor(raw, dtype=torch.float32, requires_grad=True), labels, [], cross_weight=0)
    bank = np.concatenate([centroids, centroids])
    oracle.update(bank, np.stack([oracle.unit(row) for row in raw]), labels, momentum=0.1, hard_k=hard_k)
    close(bench.memory.bank("visible").vectors, bank)


# Check 6: graph matching.


def test_graph_matching_is_that_of_check_6(kit) -> None:
    infrared = kit.at_degrees(2, 85)
    to_infrared, to_visible = progressive_graph_matching(kit.at_degrees(0, 10, 80), infrared)
    assert to_infrared.tolist() == [0, 0, 1]
    assert to_visible.tolist() == [0, 2]
    to_infrared, to_visible = progressive_graph_matching(kit.at_degrees(0, 10, 20, 80, 95), infrared)
    assert to_infrared.tolist() == [0, 0, 0, 1, 1]
    assert to_visible.tolist() == [0, 3]


# Check 7: Jaccard distance and the modality-balanced expansion.


def filled(sparse) -> np.ndarray:
    coordinates = sparse.tocoo()
    dense = np.ones(sparse.shape)
    dense[coordinates.row, coordinates.col] = coordinates.data
    return dense


def test_jaccard_distance_is_that_of_check_7(kit) -> None:
    features = kit.at_degrees(0, 4, 10, 90, 97, 180)
    plain = k_reciprocal_jaccard(features, k1=3, k2=2)
    found = filled(plain)
    pairs = {(0, 1): 0, (0, 2): 0.0107, (1, 2): 0.0107, (3, 4): 0, (3, 5): 0.5978, (4, 5): 0.5978}
    for pair, expected in pairs.items():
        assert found[pair] == pytest.approx(expected, abs=1e-4)
    assert (found[:3, 3:] == 1).all()
    assert dbscan(plain, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 1, 1, 1]
    balanced = modality_balanced(torch.tensor([0, 1, 0, 1, 0, 1]))
    found = filled(k_reciprocal_jaccard(features, k1=4, k2=3, expansion=balanced))
    for pair, expected in {(0, 1): 0, (0, 3): 0.7885, (0, 4): 0.9599, (3, 4): 0.4378, (4, 5): 0}.items():
        assert found[pair] == pytest.approx(expected, abs=1e-4)


# Check 8: joint centroids.


def test_joint_centroids_weigh_modalities_alike_as_in_check_8(kit) -> None:
    train = kit.train_index(3, 2)
    features = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0], [0.28, 0.96]])
    joint = torch.tensor([0, 0, 0, 0, 1])
    close(balanced_means(features, joint, train.modality, 2), [[0.5, 0.5], [0.28, 0.96]])
    memory = HardMemory(HardMemoryOptions(), kit.setup(train, 2))
    memory.build(kit.Epoch(train, features), PseudoLabels(train, {"joint": joint}))
    rows = [[0.707107, 0.707107], [0.28, 0.96]]
    close(memory.bank("joint").vectors, rows * 2)


# Check 9: scoring.


@pytest.mark.parametrize(
    ("camera", "curve", "precision", "penalty"), [(3, [0, 0, 1], 0.325, 0.4), (6, [0, 1, 1], 0.411111, 0.5)]
)
def test_sysu_scores_are_those_of_check_9(camera: int, curve: list, precision: float, penalty: float) -> None:
    identities, cameras = np.array([2, 2, 1, 3, 1, 1]), np.array([1, 4, 2, 1, 1, 4])
    excluded = (cameras == 2)[None] & (camera == 3)
    ranked = np.linspace(1, 0.5, 6, dtype=np.float32)[None]
    scores = score_similarity(ranked, np.array([1]), identities, excluded=excluded, cmc="identity")
    assert scores.cmc[:3].tolist() == curve
    assert scores.mAP == pytest.approx(precision, abs=1e-6)
    assert scores.mINP == pytest.approx(penalty, abs=1e-6)


# Check 10: the teacher.


def test_teacher_moves_as_in_check_10() -> None:
    online = nn.Linear(2, 2)
    nn.init.zeros_(online.weight)
    teacher = make_teacher(online, decay=0.999)
    nn.init.ones_(online.weight)
    update_teacher(teacher, online)
    close(teacher.module.weight, torch.full((2, 2), 0.001), atol=1e-7)


class ToyNet:
    """The toys' encoder, which trains in no time."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard("A toy encoder.", "part")

    @staticmethod
    @hookimpl
    def harness_backbones():
        yield TOY_BACKBONE


def run_toy(tmp_path: Path, *plugins: str, step: str = "draw", **values: object):
    """Two stages of one epoch and two iterations on the tiny dataset. Returns the record and what the user was told."""
    stages = [
        {"name": "intra", "epochs": 1, "iterations": 2, "cross": False, "teacher": "follow"},
        {"name": "progressive", "epochs": 1, "iterations": 2},
    ]
    recipe = {"stages": stages, "visible_clusters": 3, "infrared_clusters": 3, "instances": 4, "step": step}
    ground = {
        "plugins": (*plugins, "toy-net"),
        "model": {"backbone": "toy"},
        "recipe": recipe,
        "evaluation": {"trials": 1},
        "options": {"joint-branch": {"k1": 8, "k2": 4, "min_samples": 2, "eps": 0.9}},
    }
    show = Silent()
    plan = plan_run(toy_settings(**{**ground, **values}), Catalogue(extra={**PLUGINS, "dnc": Dnc, "toy-net": ToyNet}))
    return run_planned(plan, tmp_path, resume=False, force=False, show=show), show


def test_teacher_moves_once_per_iteration_though_there_are_two_steps(tiny, tmp_path, monkeypatch) -> None:
    moves, steps = [], []
    update, step = harness.engine.train.update_teacher, harness.engine.train.Trainer._step
    monkeypatch.setattr(
        harness.engine.train, "update_teacher", lambda *a, **k: (moves.append(k["follow"]), update(*a, **k))
    )
    monkeypatch.setattr(
        harness.engine.train.Trainer, "_step", lambda self, loss: (steps.append(loss), step(self, loss))[1]
    )
    _, show = run_toy(tmp_path, "pclhd")
    assert "hard-contrast/joint-visible" in show.rows[1]["losses"]
    assert moves == [True, True, False, False]
    assert len(steps) == 2 + 2 * 2


# The joint branch.


@pytest.fixture
def mixture(kit) -> SimpleNamespace:
    """Three joint clusters, one of them visible only, and visible and infrared clusters beside them."""
    train = kit.train_index(6, 4)
    joint = torch.tensor([0, 0, 1, 1, 2, -1, 0, 2, 2, -1])
    visible, infrared = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 0])
    absent = torch.full((6,), OUTLIER)
    labels = PseudoLabels(
        train,
        {"visible": torch.cat([visible, absent[:4]]), "infrared": torch.cat([absent, infrared])},
        {("visible", "infrared"): torch.tensor([0, 0, 1]), ("infrared", "visible"): torch.tensor([0, 2])},
    )
    shared, single = split_by_modality(joint, train)
    features = normalize(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    return SimpleNamespace(
        train=train, joint=joint, shared=shared, single=single, labels=labels, features=features,
        full=labels.replace({"joint": shared, SINGLE: single}), epoch=kit.Epoch(train, features),
    )  # fmt: skip


def test_joint_clusters_are_told_apart_by_their_modalities(mixture) -> None:
    assert mixture.shared.tolist() == [0, 0, -1, -1, 1, -1, 0, 1, 1, -1]
    assert mixture.single.tolist() == [-1, -1, 0, 0, -1, -1, -1, -1, -1, -1]


def test_joint_clusters_of_nothing_are_nothing(kit) -> None:
    outliers = torch.full((4,), OUTLIER)
    for part in split_by_modality(outliers, kit.train_index(2, 2)):
        assert torch.equal(part, outliers)


def test_joint_bank_holds_single_modality_clusters_as_negatives_that_never_change(kit, mixture) -> None:
    memory = HardMemory(HardMemoryOptions(), kit.setup(mixture.train, 4))
    memory.build(mixture.epoch, mixture.full)
    bank = memory.bank("joint")
    assert bank.cluster.tolist() == [0, 1, -1, 0, 1, -1]
    assert bank.kind.tolist() == [BankKind.CENTROID] * 3 + [BankKind.HARD] * 3
    expected = normalize(mixture.features[2:4].mean(0), dim=0)
    close(bank.vectors[[2, 5]], expected.expand(2, 4), atol=1e-6)
    before = bank.vectors.clone()
    batch = kit.batch(mixture.full, [0, 1, 4, 6, 7, 8], draw=Draw(("joint",)))
    memory.update(batch, kit.embeddings(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))))
    changed = (memory.bank("joint").vectors != before).any(dim=1)
    assert changed.tolist() == [True, True, False] * 2


@GRADS
def test_joint_terms_are_one_per_modality_and_visible_images_update_first(kit, mixture, memory_grad: str) -> None:
    memory = HardMemory(HardMemoryOptions(memory_grad=memory_grad), kit.setup(mixture.train, 4))
    memory.build(mixture.epoch, mixture.full)
    start = memory.bank("joint").vectors.double().numpy().copy()
    rows = [0, 1, 4, 6, 7, 8]
    raw = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    batch, embeddings = kit.batch(mixture.full, rows, draw=Draw(("joint",))), kit.embeddings(raw)
    loss = HardContrastLoss(HardContrastOptions(temperature=0.5), memory.setup)
    terms = loss.terms(batch, embeddings, memory, mixture.epoch)
    assert list(terms) == ["hard-contrast/joint-infrared", "hard-contrast/joint-visible"]
    sum(terms.values()).backward()
    memory.update(batch, embeddings.detach())
    values, labels = raw.detach().double().numpy(), mixture.shared[rows].tolist()
    expected = [
        oracle.Term(start, values[3:], labels[3:], temperature=0.5),
        oracle.Term(start, values[:3], labels[:3], temperature=0.5),
    ]
    gradients = oracle.step(expected, momentum=0.1, released=memory_grad == "released")
    close(torch.stack(list(terms.values())), [term.value for term in expected])
    close(raw.grad, np.concatenate([gradients[1], gradients[0]]))
    close(memory.bank("joint").vectors, start)


def refined(kit, people, **options: object):
    train, features = people
    epoch = Noted(kit.Epoch(train, features, stages=2, cross=options.pop("cross", True)))
    labels = options.pop("labels", None) or separate(train)
    chosen = {"k1": 14, "k2": 8, "min_samples": 3, **options}
    return JointBranchRefiner(JointBranchOptions(**chosen), kit.setup(train, 24)).refine(epoch, labels), labels, epoch


def separate(train) -> PseudoLabels:
    absent, own = torch.full((96,), OUTLIER), torch.arange(96) // 8
    return PseudoLabels(train, {"visible": torch.cat([own, absent]), "infrared": torch.cat([absent, own])})


def test_joint_branch_adds_joint_clusters_and_a_second_batch(kit, people) -> None:
    found, before, epoch = refined(kit, people)
    assert found["joint"].num_clusters == 12
    assert found.draws == (Draw(("visible", "infrared")), Draw(("joint",)))
    for name in ("visible", "infrared"):
        assert torch.equal(found[name].labels, before[name].labels)
    for cluster in range(12):
        assert len(set(people[0].modality[found["joint"].labels == cluster].tolist())) == 2
    assert epoch.notes == []


def test_joint_branch_keeps_the_links_it_finds(kit, people) -> None:
    own = torch.arange(12)
    linked = separate(people[0]).replace(links={("visible", "infrared"): own, ("infrared", "visible"): own})
    found, _, _ = refined(kit, people, labels=linked)
    assert torch.equal(found.link("visible", "infrared"), own)


@pytest.mark.parametrize("options", [{"use_all": False}, {"cross": False}], ids=["off", "intra"])
def test_joint_branch_changes_nothing_when_off_or_in_the_first_stage(kit, people, options: dict) -> None:
    found, before, epoch = refined(kit, people, **options)
    assert found is before
    assert epoch.notes == []


def test_joint_branch_leaves_joint_labels_and_says_so(kit, people) -> None:
    joint = PseudoLabels(people[0], {"joint": torch.arange(192) % 12})
    found, _, epoch = refined(kit, people, labels=joint)
    assert found is joint
    assert "already" in epoch.notes[0]


def test_joint_branch_without_a_cluster_of_both_modalities_says_so(kit, people) -> None:
    found, before, epoch = refined(kit, people, eps=1e-6)
    assert found is before
    assert "no joint cluster holds both modalities" in epoch.notes[0]


# The memory and the loss beside other parts.


def test_first_stage_of_the_paper_keeps_centroids_that_follow_every_image(kit) -> None:
    bench = Bench(kit, EYE, memory={"intra_stages": "centroid"}, cross=False, stages=2)
    bank = bench.memory.bank("visible")
    assert bank.single
    assert bank.kind.tolist() == [BankKind.CENTROID] * 2
    raw = raw_rows((0.8, 0.6), (0.6, 0.8))
    terms = bench.step(raw, [0, 0], [], temperature=0.5)
    expected = nn.functional.cross_entropy(raw.detach() / 0.5, torch.zeros(2, dtype=torch.int64))
    close(terms["hard-contrast/visible"], expected)
    close(bench.memory.bank("visible").vectors, [[0.626849, 0.779141], [0, 1]])
    assert PaperHardMemoryOptions().intra_stages == "centroid"


def test_loss_over_a_memory_without_hard_prototypes_is_cluster_contrast_and_says_so(kit) -> None:
    bench = Bench(kit, EYE)
    memory = ClusterMemory(ClusterMemoryOptions(), bench.memory.setup)
    memory.build(bench.epoch, bench.labels)
    raw, loss = raw_rows((0.8, 0.6)), bench.loss(temperature=0.5)
    loss.begin(bench.epoch, bench.labels, memory)
    terms = loss.terms(bench.batch([0], []), Embeddings({"main": raw}), memory, bench.epoch)
    close(terms["hard-contrast/visible"], nn.functional.cross_entropy(raw / 0.5, torch.tensor([0])))
    assert ["keeps no hard ones" in note for note in bench.epoch.notes] == [True]


def test_without_links_the_cross_term_is_absent_and_the_loss_says_so(kit) -> None:
    bench = Bench(kit, EYE)
    bench.labels = bench.labels.replace({name: bench.labels[name] for name in ("visible", "infrared")})
    assert bench.labels.links == {}
    loss = bench.loss()
    loss.begin(bench.epoch, bench.labels, bench.memory)
    terms = loss.terms(bench.batch([0], [1]), Embeddings({"main": torch.eye(2)}), bench.memory, bench.epoch)
    assert set(terms) == {"hard-contrast/visible", "hard-contrast/infrared"}
    assert len(bench.epoch.notes) == 1
    assert "not linked" in bench.epoch.notes[0]


def test_with_links_nothing_is_noted_and_both_directions_can_be_had(kit) -> None:
    bench = Bench(kit, EYE)
    loss = bench.loss(direction="both")
    loss.begin(bench.epoch, bench.labels, bench.memory)
    terms = loss.terms(bench.batch([0], [1]), Embeddings({"main": torch.eye(2)}), bench.memory, bench.epoch)
    assert {"hard-contrast/visible-to-infrared", "hard-contrast/infrared-to-visible"} <= set(terms)
    assert bench.epoch.notes == []


def test_queries_without_a_label_have_no_term(kit) -> None:
    bank = Bench(kit, EYE).memory.bank("visible")
    assert hybrid_contrast(bank, torch.eye(2), torch.tensor([-1, -1]), options=HardContrastOptions()) is None


def test_released_update_leaves_losses_on_the_plain_vectors_alone(kit) -> None:
    bench = Bench(kit, EYE, memory={"memory_grad": "released"})
    embeddings = Embeddings({"main": raw_rows((0.8, 0.6))})
    plain = (embeddings.unit() @ bench.memory.bank("visible").vectors.T).sum()
    terms = bench.loss().terms(bench.batch([0], []), embeddings, bench.memory, bench.epoch)
    (plain + terms["hard-contrast/visible"]).backward()


def test_embeddings_without_a_teacher_are_an_error_that_says_what_to_do(kit) -> None:
    bench = DynamicBench(kit, dpcl_query="ema")
    with pytest.raises(ContractError, match="needs=\\('teacher',\\)"):
        bench.part.terms(bench.batch([0], []), Embeddings({"main": torch.eye(2)[:1]}), bench.memory, bench.epoch)


def test_bank_of_hard_prototypes_serves_plain_contrast(kit) -> None:
    from harness.contrast import contrast

    bank = Bench(kit, EYE).memory.bank("visible")
    twice = contrast(bank, torch.tensor([[0.8, 0.6]]), torch.tensor([0]), temperature=0.5)
    once = contrast(Bank.of_centroids(torch.eye(2)), torch.tensor([[0.8, 0.6]]), torch.tensor([0]), temperature=0.5)
    close(twice, once)


# Whole runs.


@pytest.mark.parametrize(
    ("plugins", "terms", "notes"),
    [
        (("pclhd",), {"joint-visible", "joint-infrared", "visible-to-infrared"}, {"dynamic-contrast"}),
        (("pclhd-paper",), {"joint-visible", "joint-infrared", "visible-to-infrared"}, set()),
        (("dnc", "pclhd"), {"visible", "infrared"}, {"joint-branch", "dynamic-contrast"}),
        (("hpcl",), {"visible", "infrared"}, {"hard-contrast"}),
        (("pgm", "hpcl"), {"visible", "infrared", "visible-to-infrared"}, set()),
        (("baseline", "dpcl"), set(), set()),
        (("baseline", "joint-branch"), set(), set()),
        (("chcr", "hpcl"), {"joint-visible", "joint-infrared"}, set()),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_method_and_parts_train_and_say_what_they_cannot_do(
    tiny, tmp_path, plugins: tuple[str, ...], terms: set[str], notes: set[str]
) -> None:
    options = {"options": {}} if not {"pclhd", "pclhd-paper", "joint-branch"} & set(plugins) else {}
    record, show = run_toy(tmp_path, *plugins, **options)
    assert record.skipped_epochs == []
    last = show.rows[-1]["losses"]
    assert {f"hard-contrast/{term}" for term in terms} <= set(last)
    assert ("dynamic-contrast/visible" in last) == bool({"pclhd", "pclhd-paper", "dpcl"} & set(plugins))
    said = {warning.split(":")[0] for warning in record.warnings}
    assert said & {"hard-contrast", "dynamic-contrast", "joint-branch"} == notes


# The offers.

OFFERS = {
    "pclhd": {"pgm", "joint-branch", "hard-memory", "hard-contrast", "dynamic-contrast"},
    "pclhd-paper": {"pgm", "joint-branch", "hard-memory", "hard-contrast", "dynamic-contrast"},
    "hpcl": {"hard-memory", "hard-contrast"},
    "dpcl": {"dynamic-contrast"},
    "joint-branch": {"joint-branch"},
}
DATASETS = ("sysu-mm01", "regdb", "rendered")


def loaded(name: str):
    plugin = load(name, PLUGINS[name])
    assert plugin.problem is None
    return plugin


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_offers_its_parts_with_documented_options(name: str) -> None:
    plugin = loaded(name)
    assert plugin.card.paper.venue == "NeurIPS"
    assert {provider.name for provider in plugin.providers} == OFFERS[name]
    for provider in plugin.providers:
        assert callable(provider.load())
        assert all(field.description for field in provider.options.model_fields.values())
        for dataset in (*DATASETS, "something-else"):
            provider.resolve_options(dataset, {})


@pytest.mark.parametrize("name", PLUGINS)
def test_readme_lists_every_option_with_its_default(name: str) -> None:
    readme = (Path(sys.modules["harness_pclhd"].__file__).parent / "README.md").read_text()
    for provider in loaded(name).providers:
        if provider.name != "pgm":
            for option, field in provider.options.model_fields.items():
                assert f"| `{provider.name}.{option}` | {field.default}" in readme


def test_importing_the_plugin_leaves_torch_alone() -> None:
    code = (
        "import sys, harness_pclhd as p\n"
        "from harness.plugins import load\n"
        "for c in (p.Pclhd, p.PclhdPaper, p.Hpcl, p.Dpcl, p.JointBranch): load(c.__name__, c)\n"
        "p.Pclhd.harness_recipe('rendered')\n"
        "heavy = {'torch', 'numba', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("dataset", "stages", "first_clusters", "decay"),
    [
        ("sysu-mm01", [(50, 200)] * 2, None, 0.999),
        ("regdb", [(50, 100)] * 2, 4, 0.999),
        ("rendered", [(6, 20)] * 2, None, 0.917),
    ],
)
def test_recipe_is_that_of_the_spec(dataset: str, stages: list, first_clusters: int | None, decay: float) -> None:
    recipe = loaded("pclhd").recipe(dataset)
    assert [(stage.epochs, stage.iterations) for stage in recipe.stages] == stages
    assert [(stage.cross, stage.teacher) for stage in recipe.stages] == [(False, "follow"), (True, "average")]
    assert recipe.stages[0].visible_clusters == first_clusters
    assert (recipe.step, recipe.evaluate_encoder, recipe.teacher_decay) == ("draw", "teacher", decay)


def test_batches_have_the_published_sizes() -> None:
    recipe = loaded("pclhd").recipe("sysu-mm01")
    assert (recipe.visible_clusters, recipe.infrared_clusters, recipe.instances) == (8, 8, 16)
    assert recipe.visible_views == ("plain", "exchange")


def test_presets_of_the_method_and_of_its_parts_differ_as_the_spec_says() -> None:
    catalogue = Catalogue([], extra={"baseline": Baseline, "pgm": Pgm, **PLUGINS})

    def options(*names: str) -> dict:
        chosen = select(catalogue, names, dataset="sysu-mm01")
        return {part.name: part.options for part in chosen.parts}

    method, paper, parts = options("pclhd"), options("pclhd-paper"), options("hpcl", "dpcl")
    assert [found["hard-memory"].memory_grad for found in (method, paper, parts)] == ["released", "released", "clean"]
    assert [found["dynamic-contrast"].dpcl_query for found in (method, paper, parts)] == ["ema", "online", "online"]
    assert [found["hard-memory"].intra_stages for found in (method, paper, parts)] == ["hybrid", "centroid", "hybrid"]
    assert list(options("pgm", "pclhd")) == [
        "modality-dbscan", "pgm", "joint-branch", "hard-memory", "contrast", "cross-contrast", "hard-contrast",
        "dynamic-contrast",
    ]  # fmt: skip
