"""CHCR's parts, against the behavioural checks of chcr.md 6."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.contracts import OUTLIER, PseudoLabels, TrainIndex
from harness_baseline import ClusterMemoryOptions, ContrastOptions
from harness_baseline.losses import ContrastLoss
from harness_baseline.memory import ClusterMemory
from harness_chcr import ChcOptions, IprOptions, JointMemoryOptions, ModalityContrastOptions, ToneOptions
from harness_chcr.chc import ChcClusterer, merge_across_modalities
from harness_chcr.ipr import InterChannelRefinement, agreement, main_labels
from harness_chcr.losses import ModalityContrastLoss, batch_centroids
from harness_chcr.memory import JointMemory
from harness_chcr.tone import ToneMap, grey, tone_curve

LEVELS = [0, 1, 16, 64, 100, 128, 200, 255]
SMALL = {"k1": 14, "k2": 3, "min_samples": 3}

# Check 1: tone maps.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ToneOptions(tone="gamma", gamma=0.5), [0, 16, 64, 128, 160, 181, 226, 255]),
        (ToneOptions(tone="linear", k=-1, b=255), [255, 254, 239, 191, 155, 127, 55, 0]),
        (ToneOptions(tone="none"), LEVELS),
    ],
)
def test_tone_curves_are_those_of_check_1(options: ToneOptions, expected: list[int]) -> None:
    assert tone_curve(options)[LEVELS].tolist() == expected


def test_the_linear_map_twice_is_the_identity() -> None:
    curve = tone_curve(ToneOptions(tone="linear")).long()
    assert curve[curve].tolist() == list(range(256))


def test_a_steep_linear_map_is_clipped() -> None:
    assert tone_curve(ToneOptions(tone="linear", k=2, b=-100))[[0, 49, 50, 51, 200]].tolist() == [0, 0, 0, 2, 255]


def test_grey_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))
    assert grey(torch.from_numpy(pixels)[None])[0].numpy().tolist() == expected.tolist()


def test_grey_of_equal_channels_is_the_channel() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(grey(levels)[0], levels[0, 0])


def test_tone_map_changes_visible_images_only_and_gives_three_equal_channels() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    mapped = ToneMap(ToneOptions())(images, torch.tensor([0, 1, 0, 1]))
    assert torch.equal(images, before)
    assert mapped.dtype == torch.uint8
    assert torch.equal(mapped[[1, 3]], images[[1, 3]])
    expected = tone_curve(ToneOptions())[grey(images[[0, 2]]).long()]
    assert all(torch.equal(mapped[[0, 2], channel], expected) for channel in range(3))
    assert torch.equal(ToneMap(ToneOptions(tone="none"))(images, torch.zeros(4)), images)


def test_regdb_takes_the_linear_map_by_default() -> None:
    from harness_chcr import Chcr

    (tone,) = Chcr.harness_image_transforms()
    assert tone.resolve_options("regdb", {}).tone == "linear"
    assert tone.resolve_options("sysu-mm01", {}).tone == "gamma"


# Checks 2 and 3: inter-channel agreement.

MAIN = [0, 0, 0, 1, 1, 0, 0, 1]
RED = [0, 0, 0, 1, 1, 0, 0, 1]
GREEN = [2, 2, 5, 5, 5, 2, 2, 5]
BLUE = [1, 1, 1, 1, 0, 1, -1, 0]
SCORES = {
    "triple": [0.5, 0.5, 0.125, 0.142857, 0.5, 0.5, 0.2, 0.5],
    "mean_pairwise": [0.655556, 0.655556, 0.359127, 0.392857, 0.638889, 0.655556, 0.416667, 0.638889],
    "vs_main": [0.822222, 0.822222, 0.597222, 0.630952, 0.805556, 0.822222, 0.666667, 0.805556],
}


def channels() -> list[Tensor]:
    return [torch.tensor(labels) for labels in (RED, GREEN, BLUE)]


def naive_triple(labels: list[Tensor]) -> Tensor:
    def members(partition: Tensor, i: int) -> set[int]:
        own = int(partition[i])
        return {i} if own == OUTLIER else {j for j in range(len(partition)) if int(partition[j]) == own}

    scores = []
    for i in range(len(labels[0])):
        sets = [members(partition, i) for partition in labels]
        scores.append(len(set.intersection(*sets)) / len(set.union(*sets)))
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("score", SCORES)
def test_agreement_gives_the_scores_of_check_2(score: str) -> None:
    found = agreement(channels(), score=score, main=torch.tensor(MAIN))
    assert_close(found, torch.tensor(SCORES[score], dtype=torch.float64), atol=1e-6, rtol=0)


def test_agreement_equals_a_loop_over_sets() -> None:
    generator = torch.Generator().manual_seed(5)
    labels = [torch.randint(-1, 7, (150,), generator=generator) for _ in range(3)]
    assert_close(agreement(labels), naive_triple(labels))


def test_identical_channels_agree_fully_and_outliers_everywhere_too() -> None:
    labels = torch.tensor([0, 0, 1, -1, 1, 2])
    for score in SCORES:
        assert agreement([labels] * 3, score=score, main=labels).tolist() == [1.0] * 6


def test_permuting_the_ids_of_a_channel_changes_nothing() -> None:
    permuted = [channels()[0], (channels()[1] + 3) % 6, torch.where(channels()[2] >= 0, 1 - channels()[2], OUTLIER)]
    for score in SCORES:
        assert_close(
            agreement(permuted, score=score, main=torch.tensor(MAIN)),
            agreement(channels(), score=score, main=torch.tensor(MAIN)),
        )


def test_agreement_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match="three channels; got 2"):
        agreement(channels()[:2])
    with pytest.raises(ValueError, match="vs_main with main labels"):
        agreement(channels(), score="vs_main")


class GivenChannels(InterChannelRefinement):
    """IPR with the channels' clusterings given."""

    def _channel_labels(self, epoch: object, channel: str) -> Tensor:
        return dict(zip(("red", "green", "blue"), channels(), strict=True))[channel]


def refined(kit: SimpleNamespace, *, given: dict | None = None, index: int = 0, **options: object) -> PseudoLabels:
    train = kit.train_index(5, 3)
    labels = PseudoLabels(train, given or {"joint": torch.tensor(MAIN)})
    part = GivenChannels(IprOptions(**options), kit.setup(train, 2))
    return part.refine(kit.Epoch(train, torch.zeros(8, 2), index=index), labels)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"delta": 0.5}, [0, 0, -1, -1, 1, 0, -1, 1]),
        ({"delta": 0.15}, [0, 0, -1, -1, 1, 0, 0, 1]),
        ({"delta": 0.5, "scope": "visible_only"}, [0, 0, -1, -1, 1, 0, 0, 1]),
        ({"delta": 0.5, "min_cluster_after": 3}, [0, 0, -1, -1, -1, 0, -1, -1]),
        ({"delta": 0.0}, MAIN),
        ({"delta": 0.5, "start_epoch": 1}, MAIN),
    ],
)
def test_refinement_drops_the_labels_of_check_2(kit: SimpleNamespace, options: dict, expected: list[int]) -> None:
    assert refined(kit, **options)["joint"].labels.tolist() == expected


def test_refinement_runs_every_so_many_epochs(kit: SimpleNamespace) -> None:
    changed = [refined(kit, index=i, start_epoch=1, every=2)["joint"].labels.tolist() != MAIN for i in range(5)]
    assert changed == [False, True, False, True, False]


def test_refinement_works_on_modality_labels_too(kit: SimpleNamespace) -> None:
    given = {"visible": torch.tensor([0, 0, 0, 1, 1, -1, -1, -1]), "infrared": torch.tensor([-1] * 5 + [0, 0, 1])}
    after = refined(kit, given=given, min_cluster_after=1)
    assert after["visible"].labels.tolist() == [0, 0, -1, -1, 1, -1, -1, -1]
    assert after["infrared"].labels.tolist() == [-1] * 5 + [0, -1, 1]
    assert main_labels(PseudoLabels(kit.train_index(5, 3), given)).tolist() == [0, 0, 0, 1, 1, 2, 2, 3]


def test_refinement_asks_for_the_three_channels(kit, people: tuple[TrainIndex, Tensor]) -> None:
    train, features = people
    muddled = features.clone()
    muddled[:8] = features[8:16]
    views = {"plain": features, "red": features, "green": features, "blue": muddled}
    labels = PseudoLabels(train, {"joint": torch.arange(12).repeat_interleave(8).repeat(2)})
    part = InterChannelRefinement(IprOptions(**SMALL, use_chc=True), kit.setup(train, 24))
    after = part.refine(kit.Epoch(train, views), labels)["joint"].labels
    assert (after[:8] == OUTLIER).all()
    assert (after[16:96] >= 0).all()


# Check 4: merging across modalities.


def check_4(kit: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
    features = kit.at_degrees(0, 2, 20, 22, 60, 62, 15, 17, 50, 52, 100, 102)
    return features, torch.arange(6).repeat_interleave(2), torch.tensor([0] * 6 + [1] * 6)


@pytest.mark.parametrize("rounds", [1, 2])
def test_merging_joins_the_mutual_nearest_of_check_4(kit: SimpleNamespace, rounds: int) -> None:
    features, labels, modality = check_4(kit)
    merged = merge_across_modalities(features, labels, modality=modality, theta=0.5, rounds=rounds)
    assert merged.tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3]


def test_without_a_limit_the_second_round_merges_the_rest(kit: SimpleNamespace) -> None:
    features, labels, modality = check_4(kit)
    merged = merge_across_modalities(features, labels, modality=modality, theta=2.0, rounds=2)
    assert merged.tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 0, 0]


def test_merging_leaves_mixed_clusters_and_outliers_alone(kit: SimpleNamespace) -> None:
    features = kit.at_degrees(0, 40, 90, 1, 42, 88)
    labels, modality = torch.tensor([0, 1, -1, 0, 2, -1]), torch.tensor([0, 0, 0, 1, 1, 1])
    assert merge_across_modalities(features, labels, modality=modality).tolist() == [0, 1, -1, 0, 1, -1]


def test_attaching_to_mixed_clusters_is_an_option(kit: SimpleNamespace) -> None:
    # Cluster 2 is mixed; cluster 1 (visible) and cluster 0 (infrared) are nearer to it than to each other.
    features = kit.at_degrees(0, 350, 5, 15)
    labels, modality = torch.tensor([2, 1, 2, 0]), torch.tensor([0, 0, 1, 1])
    for attach, expected in ((False, [2, 1, 2, 0]), (True, [0, 0, 0, 0])):
        merged = merge_across_modalities(features, labels, modality=modality, theta=0.05, attach_to_mixed=attach)
        assert merged.tolist() == expected


def test_mixed_clusters_never_merge_with_each_other(kit: SimpleNamespace) -> None:
    features, labels = kit.at_degrees(0, 180, 0, 180), torch.tensor([0, 1, 1, 0])
    merged = merge_across_modalities(
        features, labels, modality=torch.tensor([0, 0, 1, 1]), theta=2.0, attach_to_mixed=True
    )
    assert merged.tolist() == [0, 1, 1, 0]


def test_merging_gives_nothing_to_merge_back_unchanged(kit: SimpleNamespace) -> None:
    features, _, modality = check_4(kit)
    for labels in (torch.full((12,), OUTLIER), torch.zeros(12, dtype=torch.int64)):
        assert torch.equal(merge_across_modalities(features, labels, modality=modality, rounds=3), labels)


def test_merging_follows_a_naive_rule_on_random_clusters() -> None:
    generator = torch.Generator().manual_seed(11)
    features = normalize(torch.randn(120, 5, generator=generator), dim=1)
    modality = (torch.arange(120) >= 60).long()
    labels = torch.randint(-1, 9, (120,), generator=generator) + modality * 9
    labels = torch.where((labels == 8) & (modality == 1), OUTLIER, labels)
    found = merge_across_modalities(features, labels, modality=modality, theta=0.9)
    centroid = {int(k): normalize(features[labels == k].double().mean(0), dim=0) for k in labels.unique() if k >= 0}
    a, b = [k for k in centroid if k < 9], [k for k in centroid if k >= 9]
    expected = labels.clone()
    for k in a:
        mate = max(b, key=lambda l, k=k: float(centroid[k] @ centroid[l]))
        back = max(a, key=lambda l, mate=mate: float(centroid[mate] @ centroid[l]))
        if back == k and float(1 - centroid[k] @ centroid[mate]) <= 0.9:
            expected[labels == mate] = k
    assert same_partition(found, expected)


def same_partition(first: Tensor, second: Tensor) -> bool:
    pairs = torch.unique(torch.stack([first, second]), dim=1)
    return pairs.shape[1] == len(first.unique()) == len(second.unique()) and bool(
        ((pairs[0] < 0) == (pairs[1] < 0)).all()
    )


@pytest.mark.parametrize("mode", ["merge", "bottom_up", "off"])
def test_clusterer_finds_people_across_modalities(kit, people: tuple[TrainIndex, Tensor], mode: str) -> None:
    train, features = people
    options = ChcOptions(**SMALL, mode=mode, apart_k1=8)
    labels = ChcClusterer(options, kit.setup(train, 24)).cluster(kit.Epoch(train, features))
    assert labels.given == ("joint",)
    assert same_partition(labels["joint"].labels, torch.arange(12).repeat_interleave(8).repeat(2))


def test_clusterer_may_wait_for_a_stage_with_cross_modality_evidence(kit, people) -> None:
    train, features = people
    part = ChcClusterer(ChcOptions(**SMALL, intra_stages="apart", apart_k1=8), kit.setup(train, 24))
    assert part.cluster(kit.Epoch(train, features, cross=False)).given == ("visible", "infrared")
    assert part.cluster(kit.Epoch(train, features, cross=True)).given == ("joint",)


# Check 5: the modality loss.


class GivenMemory(ClusterMemory):
    """A memory whose banks are given."""

    def given(self, **banks: Tensor) -> GivenMemory:
        self._names = tuple(banks)
        self._banks = {(name, "main"): vectors for name, vectors in banks.items()}
        return self


def check_5(kit: SimpleNamespace, visible_label: int, **options: object) -> Tensor:
    """One visible query at 5 degrees; visible proxies at 1 and 61, infrared ones at 16, 51 and 101 degrees."""
    train = kit.train_index(2, 3)
    labels = PseudoLabels(train, {"joint": torch.tensor([0, 1, 0, 1, 2])})
    memory = GivenMemory(ClusterMemoryOptions(), kit.setup(train, 2)).given(
        joint=kit.at_degrees(8, 55, 101), visible=kit.at_degrees(1, 61), infrared=kit.at_degrees(16, 51, 101)
    )
    loss = ModalityContrastLoss(ModalityContrastOptions(**options), kit.setup(train, 2))
    batch = kit.batch(labels, [visible_label])
    terms = loss.terms(batch, kit.embeddings(kit.at_degrees(5)), memory, kit.Epoch(train, torch.zeros(5, 2)))
    assert set(terms) == {"modality-contrast"}
    return terms["modality-contrast"]


@pytest.mark.parametrize(
    ("label", "temperature", "expected"),
    [(0, 0.1, 0.055185), (1, 0.1, 2.924873), (0, 0.05, 0.003212), (1, 0.05, 5.742588)],
)
def test_opposite_form_gives_the_losses_of_check_5(kit, label: int, temperature: float, expected: float) -> None:
    assert_close(check_5(kit, label, temperature=temperature), torch.tensor(expected), atol=2e-5, rtol=0)


def test_proxy_form_gives_the_loss_of_check_5(kit: SimpleNamespace) -> None:
    assert_close(check_5(kit, 0, temperature=0.1, form="proxy"), torch.tensor(0.728638), atol=1e-5, rtol=0)


def test_weight_scales_the_term(kit: SimpleNamespace) -> None:
    assert_close(check_5(kit, 0, temperature=0.1, weight=2.0), torch.tensor(0.11037), atol=2e-5, rtol=0)


def test_batch_centroids_are_of_clusters_that_both_modalities_have(kit: SimpleNamespace) -> None:
    rows = kit.at_degrees(0, 20, 90, 45, 10, 30, 70)
    visible = torch.tensor([4, 4, 1, 3, -1, -1, -1])
    infrared = torch.tensor([-1, -1, -1, -1, 4, 4, 1])
    found = batch_centroids(rows, visible, infrared)
    assert_close(found[0], kit.at_degrees(90, 10))
    assert_close(found[1], kit.at_degrees(70, 20))


def test_centroid_form_contrasts_batch_means_both_ways_with_gradient(kit: SimpleNamespace) -> None:
    train = kit.train_index(4, 4)
    labels = PseudoLabels(train, {"joint": torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])})
    rows = kit.at_degrees(0, 20, 80, 100, 20, 40, 60, 80).requires_grad_()
    memory = GivenMemory(ClusterMemoryOptions(), kit.setup(train, 2)).given()
    loss = ModalityContrastLoss(ModalityContrastOptions(form="centroid", temperature=0.1), kit.setup(train, 2))
    value = loss.terms(kit.batch(labels, torch.arange(8)), kit.embeddings(rows), memory, None)["modality-contrast"]
    similarity = kit.at_degrees(10, 90) @ kit.at_degrees(30, 70).T / 0.1
    own = torch.arange(2)
    expected = torch.nn.functional.cross_entropy(similarity, own) + torch.nn.functional.cross_entropy(similarity.T, own)
    assert_close(value, expected / 2)
    (gradient,) = torch.autograd.grad(value, rows)
    again = rows.detach().clone().requires_grad_()
    unit = normalize(again, dim=1)
    visible, infrared = (normalize(unit[half].view(2, 2, 2).mean(1), dim=1) for half in (slice(0, 4), slice(4, 8)))
    one = torch.nn.functional.cross_entropy(visible @ infrared.detach().T / 0.1, own)
    other = torch.nn.functional.cross_entropy(infrared @ visible.detach().T / 0.1, own)
    ((one + other) / 2).backward()
    assert_close(gradient, again.grad)


# Check 6, and the memory.


def joint_scene(kit: SimpleNamespace, joint: list[int], size: int = 6) -> tuple:
    train = kit.train_index(6, 6)
    features = normalize(torch.randn(12, size, generator=torch.Generator().manual_seed(2)), dim=1)
    labels = PseudoLabels(train, {"joint": torch.tensor(joint)})
    epoch = kit.Epoch(train, features)
    memory = JointMemory(JointMemoryOptions(), kit.setup(train, size))
    memory.build(epoch, labels)
    return train, features, labels, epoch, memory


@pytest.mark.parametrize("form", ["opposite", "proxy", "centroid"])
@pytest.mark.parametrize("joint", [[0, 0, 0, 1, 1, -1, 2, 2, 2, 3, 3, -1], [-1] * 12])
def test_labels_of_one_modality_give_no_modality_loss(kit: SimpleNamespace, form: str, joint: list[int]) -> None:
    _, features, labels, epoch, memory = joint_scene(kit, joint)
    loss = ModalityContrastLoss(ModalityContrastOptions(form=form), memory.setup)
    assert loss.terms(kit.batch(labels, torch.arange(12)), kit.embeddings(features), memory, epoch) == {}


@pytest.mark.parametrize("form", ["opposite", "proxy", "centroid"])
def test_unlinked_modality_labels_give_no_modality_loss(kit: SimpleNamespace, form: str) -> None:
    _, features, labels, epoch, memory = joint_scene(kit, [0, 0, 0, 1, 1, 1] * 2)
    unlinked = PseudoLabels(labels.train, {name: labels[name] for name in ("visible", "infrared")})
    loss = ModalityContrastLoss(ModalityContrastOptions(form=form), memory.setup)
    assert loss.terms(kit.batch(unlinked, torch.arange(12)), kit.embeddings(features), memory, epoch) == {}


def test_modality_loss_is_the_mean_over_the_queries_of_both_directions(kit: SimpleNamespace) -> None:
    _, features, labels, epoch, memory = joint_scene(kit, [0, 0, 0, 1, 1, 2, 0, 1, 1, 1, 3, 3])
    loss = ModalityContrastLoss(ModalityContrastOptions(), memory.setup)
    value = loss.terms(kit.batch(labels, torch.arange(12)), kit.embeddings(features), memory, epoch)
    each = []
    for rows, other, targets in (
        (range(0, 5), "infrared", [0, 0, 0, 1, 1]),
        (range(6, 10), "visible", [0, 1, 1, 1]),
    ):
        logits = features[list(rows)] @ memory.bank(other).vectors.T / 0.05
        each.append(torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none"))
    assert_close(value["modality-contrast"], torch.cat(each).mean())


@pytest.mark.parametrize("form", ["opposite", "proxy", "centroid"])
def test_no_gradient_reaches_the_banks(kit: SimpleNamespace, form: str) -> None:
    _, features, labels, epoch, memory = joint_scene(kit, [0, 0, 0, 1, 1, 1] * 2)
    rows = features.clone().requires_grad_()
    loss = ModalityContrastLoss(ModalityContrastOptions(form=form), memory.setup)
    loss.terms(kit.batch(labels, torch.arange(12)), kit.embeddings(rows), memory, epoch)["modality-contrast"].backward()
    assert float(rows.grad.abs().sum()) > 0
    assert all(memory.bank(name).vectors.grad is None for name in memory.names)
    memory.update(kit.batch(labels, torch.arange(12)), kit.embeddings(rows).detach())
    assert not any(memory.bank(name).vectors.requires_grad for name in memory.names)


def test_with_everything_off_chcr_is_joint_clustering_and_cluster_contrast(kit, people) -> None:
    train, features = people
    epoch, setup = kit.Epoch(train, features), kit.setup(train, 24)
    labels = ChcClusterer(ChcOptions(**SMALL, mode="off"), setup).cluster(epoch)
    labels = InterChannelRefinement(IprOptions(**SMALL, delta=0.0), setup).refine(epoch, labels)
    plain = torch.from_numpy(dbscan(k_reciprocal_jaccard(features, k1=14, k2=3), eps=0.6, min_samples=3))
    assert torch.equal(labels["joint"].labels, plain)
    memory = JointMemory(JointMemoryOptions(), setup)
    reference = ClusterMemory(ClusterMemoryOptions(momentum=0.2), setup)
    rows = torch.arange(0, 192, 3)
    batch = kit.batch(labels, rows)
    embeddings = kit.embeddings(features[rows] + 0.1)
    for part in (memory, reference):
        part.build(epoch, labels)
        part.update(batch, embeddings)
    own = ModalityContrastLoss(ModalityContrastOptions(weight=0.0), setup).terms(batch, embeddings, memory, epoch)
    own |= ContrastLoss(ContrastOptions(), setup).terms(batch, embeddings, memory, epoch)
    expected = torch.nn.functional.cross_entropy(
        embeddings.unit() @ reference.bank("joint").vectors.T / 0.05, plain[rows]
    )
    assert_close(sum(own.values()), expected)


def test_modality_banks_are_updated_by_their_own_modality(kit: SimpleNamespace) -> None:
    _, features, labels, _, memory = joint_scene(kit, [0, 0, 0, 1, 1, 1] * 2)
    before = {name: memory.bank(name).vectors.clone() for name in memory.names}
    memory.update(kit.batch(labels, [0]), kit.embeddings(features[[3]]))
    moved = normalize(0.2 * before["visible"][0] + 0.8 * features[3], dim=0)
    assert_close(memory.bank("visible").vectors[0], moved)
    assert_close(memory.bank("infrared").vectors, before["infrared"])
    assert_close(memory.bank("joint").vectors[0], normalize(0.2 * before["joint"][0] + 0.8 * features[3], dim=0))


def test_balanced_mean_weighs_the_modalities_equally(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 2)
    features = kit.at_degrees(0, 0, 0, 60, 100)
    labels = PseudoLabels(train, {"joint": torch.tensor([0, 0, 0, 0, 1])})
    memory = JointMemory(JointMemoryOptions(balanced_mean=True), kit.setup(train, 2))
    memory.build(kit.Epoch(train, features), labels)
    assert_close(memory.bank("joint").vectors, kit.at_degrees(30, 100))


def test_tone_map_gives_the_pixels_that_a_lossless_file_would_hold() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mapped = ToneMap(ToneOptions(tone="linear"))(torch.from_numpy(pixels.transpose(2, 0, 1))[None], torch.zeros(1))
    stored = io.BytesIO()
    Image.fromarray(255 - np.asarray(Image.fromarray(pixels).convert("L"))).convert("RGB").save(stored, "BMP")
    assert np.asarray(Image.open(stored)).transpose(2, 0, 1).tolist() == mapped[0].tolist()
