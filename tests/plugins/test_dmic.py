"""DMIC's parts, against the behavioural checks of dmic.md 6."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.contracts import OUTLIER, Bank, BankKind, Draw, PseudoLabels
from harness.errors import ContractError, HarnessError
from harness_baseline import ClusterMemoryOptions
from harness_baseline.memory import ClusterMemory
from harness_dmic import DNC, HYBRID_CONTRAST, MIE, Dmic
from harness_dmic.clusterer import DncClusterer, MieClusterer, expanded_jaccard, mixed_clusters
from harness_dmic.expansion import CameraGroups, InvariantExpansion, has_encoding
from harness_dmic.losses import NO_IMAGES, HybridContrastLoss, instance_contrast
from harness_dmic.memory import HybridMemory, shuffled_update
from harness_dmic.options import DncOptions, HmclMemoryOptions, HybridContrastOptions, MieOptions
from harness_dmic.schedules import eps_at, k2_at
from tests.plugins import invariant_oracle as oracle

SYSU, REGDB = DNC.resolve_options("sysu-mm01", {}), DNC.resolve_options("regdb", {})


def groups_of(groups: list[tuple[int, int]]) -> CameraGroups:
    modality, camera = torch.tensor(groups).T
    return CameraGroups.of(modality, camera)


# Check 1: expansion.

PROBE_GROUPS = [(0, 1), (0, 1), (0, 2), (1, 3), (0, 1), (1, 6)]
PROBE_RANKING = np.array([[0, 1, 4, 2, 3, 5]] * 6)


@pytest.mark.parametrize(
    ("k2", "form", "expected"),
    [
        (4, "nested", [1 / 6, 1 / 6, 1 / 2, 0, 1 / 6, 0]),
        (4, "flat", [1 / 6, 1 / 6, 1 / 2, 0, 1 / 6, 0]),
        (5, "nested", [1 / 12, 1 / 12, 1 / 4, 1 / 2, 1 / 12, 0]),
        (5, "flat", [1 / 9, 1 / 9, 1 / 3, 1 / 3, 1 / 9, 0]),
        (5, "plain", [0.2, 0.2, 0.2, 0.2, 0.2, 0]),
        (6, "nested", [1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 12, 1 / 4]),
        (6, "flat", [1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 12, 1 / 4]),
    ],
)
def test_expansion_is_that_of_check_1(k2: int, form: str, expected: list[float]) -> None:
    averages = InvariantExpansion(groups_of(PROBE_GROUPS), form)(PROBE_RANKING, k2)
    np.testing.assert_allclose(averages.toarray()[0], expected, atol=1e-15)


def test_an_expansion_over_other_images_than_were_ranked_is_refused() -> None:
    with pytest.raises(HarnessError, match="cameras of 5 images"):
        InvariantExpansion(groups_of(PROBE_GROUPS[:5]))(PROBE_RANKING, 4)


# Checks 2 and 3: the distance.


def test_jaccard_of_rows_is_that_of_check_2() -> None:
    from scipy.sparse import csr_matrix

    from harness.clustering.jaccard import jaccard_distance

    rows = csr_matrix([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1.0]])
    expected = [[0, 2 / 3, 1], [2 / 3, 0, 1], [1, 1, 0]]
    np.testing.assert_allclose(oracle.dense(jaccard_distance(rows)), expected, atol=1e-15)


def bridge_distance(form: str):
    groups = CameraGroups.of(torch.tensor(oracle.BRIDGE_MODALITY), torch.tensor(oracle.BRIDGE_CAMERA))
    return expanded_jaccard(oracle.bridge(), k1=7, width=7, expansion=InvariantExpansion(groups, form))


def test_encodings_of_the_bridge_are_those_of_check_3() -> None:
    features = oracle.bridge()
    encoding = k_reciprocal_encoding(features, nearest_neighbours(features, 7).numpy())
    assert np.diff(encoding.indptr).tolist() == [6, 6, 6, 6, 6, 7, 7, 6, 6, 6, 6, 6, 4, 4, 4, 4]
    expected = [0.150883, 0.150927, 0.151557, 0.151841, 0.151941, 0.151945, 0.090905]
    np.testing.assert_allclose(encoding.toarray()[5, :7], expected, atol=1e-6)


def test_balanced_cameras_bridge_the_modalities_as_in_check_3() -> None:
    plain, nested = oracle.dense(bridge_distance("plain")), oracle.dense(bridge_distance("nested"))
    np.testing.assert_allclose([plain[0, 6], plain[0, 12]], [0.833333, 0.923073], atol=1e-6)
    np.testing.assert_allclose([nested[0, 6], nested[0, 12]], [0.140806, 0.699813], atol=1e-6)


@pytest.mark.parametrize(("form", "sizes"), [("plain", [6, 6, 4]), ("nested", [12, 4])])
def test_clusters_of_the_bridge_are_those_of_check_3(form: str, sizes: list[int]) -> None:
    labels = dbscan(bridge_distance(form), eps=0.5, min_samples=4)
    assert np.bincount(labels).tolist() == sizes
    assert labels.min() == 0


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    total=st.integers(2, 40),
    k1=st.integers(2, 20),
    k2=st.integers(1, 20),
    form=st.sampled_from(["nested", "flat", "plain"]),
)
def test_distance_is_that_of_a_loop_over_the_definition(seed: int, total: int, k1: int, k2: int, form: str) -> None:
    features, groups = oracle.crowd(seed, total)
    width = min(k1, k2)
    found = expanded_jaccard(features, k1=k1, width=width, expansion=InvariantExpansion(groups_of(groups), form))
    expected = oracle.distance(features.numpy(), groups, k1=k1, k2=width, k3=width, form=form)
    np.testing.assert_allclose(oracle.dense(found), expected, atol=1e-9)


def test_images_without_an_encoding_have_no_part_in_a_mean() -> None:
    # Seven equal rows and lists of four: the last three are in nobody's list.
    features = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(7, 1), torch.tensor([[0.0, 1.0], [0.1, 0.995]])]).double()
    groups = [(0, 1), (1, 3), (0, 2), (1, 6), (0, 1), (1, 3), (0, 2), (0, 1), (1, 3)]
    ranking = nearest_neighbours(features, 4).numpy()
    assert has_encoding(ranking).tolist() == [True] * 4 + [False] * 3 + [True] * 2
    assert has_encoding(np.array([[1, 2], [0, 2], [0, 1]])).tolist() == [True] * 3
    found = oracle.dense(expanded_jaccard(features, k1=4, width=4, expansion=InvariantExpansion(groups_of(groups))))
    expected = oracle.distance(features.numpy(), groups, k1=4, k2=4, k3=4)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_image_whose_neighbours_all_lack_an_encoding_keeps_an_average() -> None:
    ranking = np.array([[0, 1], [0, 1], [3, 3], [4, 4], [3, 0], [2, 2]])
    assert has_encoding(ranking).tolist() == [True, True, False, True, True, False]
    averages = InvariantExpansion(groups_of([(0, 1)] * 6))(ranking, 2)
    np.testing.assert_allclose(averages.sum(axis=1), 1)


# Check 4: schedules.


@pytest.mark.parametrize(
    ("options", "cross", "epochs", "expected"),
    [
        (SYSU, False, [0, 10, 25, 40, 49], [0.6, 0.522330, 0.424264, 0.344610, 0.304188]),
        (SYSU, True, [0, 5, 9, 10, 11, 30, 49], [0.6, 0.424264, 0.321532, 0.3, 0.305244, 0.424264, 0.589692]),
        (REGDB, False, [0, 25, 49], [0.3, 0.244949, 0.201628]),
        (REGDB, True, [0, 5, 10, 30, 49], [0.3, 0.244949, 0.2, 0.244949, 0.296974]),
    ],
    ids=["sysu-mm01, intra", "sysu-mm01, inter", "regdb, intra", "regdb, inter"],
)
def test_radius_follows_the_schedule_of_check_4(options, cross: bool, epochs: list, expected: list) -> None:
    found = [eps_at(epoch, 50, cross=cross, schedule=options) for epoch in epochs]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "first"),
    [(SYSU, [4, 11, 16, 21, 26, 30, 34, 37, 41, 44, 47, 49]), (REGDB, [6, 17, 26, 34, 41, 47])],
    ids=["sysu-mm01", "regdb"],
)
def test_expansion_grows_as_in_check_4(options, first: list[int]) -> None:
    sizes = [k2_at(epoch, 50, start=options.k2_intra, growth=options.k2_growth) for epoch in range(50)]
    assert sizes[0] == 6
    assert [sizes.index(size) for size in range(7, 7 + len(first))] == first
    assert sizes == sorted(sizes)
    assert max(sizes) == 6 + len(first)


def test_expansion_stays_at_its_upper_size_beyond_the_horizon() -> None:
    assert [k2_at(epoch, 10, start=6, growth=3.0) for epoch in (9, 10, 11, 40)] == [16, 18, 18, 18]


@pytest.mark.parametrize("stage_epochs", [1, 2, 3, 6])
def test_short_stages_run_through_the_same_radii(stage_epochs: int) -> None:
    radii = [eps_at(epoch, stage_epochs, cross=True, schedule=SYSU) for epoch in range(stage_epochs)]
    assert radii[0] == 0.6
    assert all(0.3 <= radius <= 0.6 for radius in radii)
    if stage_epochs == 6:
        np.testing.assert_allclose(radii, [0.6, 0.3, 0.3 * 2**0.2, 0.3 * 2**0.4, 0.3 * 2**0.6, 0.3 * 2**0.8])


def test_presets_are_the_values_of_the_paper() -> None:
    assert (SYSU.eps, SYSU.eps_low, SYSU.k2_joint, SYSU.k2_intra, SYSU.k1_intra, SYSU.k1_joint) == (
        0.6,
        0.3,
        32,
        6,
        40,
        40,
    )
    assert (REGDB.eps, REGDB.eps_low, REGDB.k2_joint, REGDB.k2_intra, REGDB.k1_intra) == (0.3, 0.2, 18, 6, 38)
    assert (SYSU.eps_shrink, SYSU.eps_growth, SYSU.k2_growth) == (0.5, 2, 3)
    assert (REGDB.eps_shrink, REGDB.eps_growth, REGDB.k2_growth) == (2 / 3, 1.5, 2)
    assert MIE.resolve_options("regdb", {}).eps == 0.3
    # Continuous where shrinking turns into growing.
    for options in (SYSU, REGDB):
        assert math.isclose(options.eps * options.eps_shrink, options.eps_low)


# Clusterers.

SMALL = {"k1_intra": 14, "k1_joint": 28, "k2_intra": 3, "k2_joint": 8, "min_samples": 3}


def test_clusters_are_found_apart_and_in_the_second_phase_jointly(kit: SimpleNamespace, people: tuple) -> None:
    train, features = people
    for made in (
        MieClusterer(MieOptions(**SMALL), kit.setup(train, 24)),
        DncClusterer(DncOptions(**SMALL), kit.setup(train, 24)),
    ):
        intra = made.cluster(kit.Epoch(train, features, stages=2, cross=False))
        inter = made.cluster(kit.Epoch(train, features, stages=2, stage_number=1, cross=True))
        assert intra.given == ("visible", "infrared")
        assert inter.given == ("visible", "infrared", "joint")
        assert inter.draws == (Draw(("visible", "infrared")), Draw(("joint",)))
        assert [inter[name].num_clusters for name in inter.given] == [12, 12, 12]
        assert torch.equal(inter["visible"].labels, intra["visible"].labels)


def test_the_schedule_reaches_the_clustering(kit: SimpleNamespace) -> None:
    train = kit.train_index(30, 30)
    clusterer = DncClusterer(SYSU, kit.setup(train, 2))
    search = clusterer.search(kit.Epoch(train, torch.zeros(60, 2), index=30, stage_epochs=50, cross=True), joint=True)
    assert (search.k1, search.width) == (40, 32)
    assert math.isclose(search.eps, 0.424264, abs_tol=1e-6)
    epoch = kit.Epoch(train, torch.zeros(60, 2), index=30, stage_epochs=50, cross=False)
    assert clusterer.search(epoch, joint=False).width == 12
    late = DncClusterer(DncOptions(k2_horizon=25), kit.setup(train, 2)).search(epoch, joint=False)
    assert late.width == 18


def test_constant_clustering_is_the_same_in_every_epoch(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 3)
    clusterer = MieClusterer(MieOptions(), kit.setup(train, 2))
    for index in (0, 30):
        epoch = kit.Epoch(train, torch.zeros(6, 2), index=index, stage_epochs=50, cross=True)
        intra, joint = (clusterer.search(epoch, joint=value) for value in (False, True))
        assert (intra.k1, intra.width, intra.eps) == (40, 6, 0.6)
        assert (joint.k1, joint.width, joint.eps) == (40, 32, 0.6)


def test_expansion_never_looks_beyond_the_rank_list(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 3)
    clusterer = MieClusterer(MieOptions(k1_joint=7), kit.setup(train, 2))
    assert clusterer.search(kit.Epoch(train, torch.zeros(6, 2)), joint=True).width == 7


def test_joint_clusters_of_one_modality_can_be_dissolved(kit: SimpleNamespace) -> None:
    train = kit.train_index(5, 4)
    labels = torch.tensor([0, 0, 1, 2, -1, 1, 3, 2, -1])
    assert mixed_clusters(labels, train).tolist() == [-1, -1, 0, 1, -1, 0, -1, 1, -1]
    assert mixed_clusters(torch.full((9,), OUTLIER), train).tolist() == [-1] * 9


def test_the_option_dissolves_them_and_the_default_keeps_them(kit: SimpleNamespace) -> None:
    train = kit.train_index(24, 24)
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(4, 16, generator=generator), dim=1).repeat_interleave(12, 0)
    features = normalize(centres + 0.05 * torch.randn(48, 16, generator=generator), dim=1)
    epoch, few = kit.Epoch(train, features), {**SMALL, "k1_joint": 8, "k2_joint": 3}
    kept = MieClusterer(MieOptions(**few), kit.setup(train, 16)).cluster(epoch)
    assert kept["joint"].num_clusters == 4
    dissolved = MieClusterer(MieOptions(**few, joint_require_mixed=True), kit.setup(train, 16)).cluster(epoch)
    assert dissolved["joint"].num_clusters == 0


def test_a_modality_without_images_has_no_clusters(kit: SimpleNamespace) -> None:
    train = kit.train_index(6, 0)
    labels = MieClusterer(MieOptions(**SMALL), kit.setup(train, 2)).cluster(
        kit.Epoch(train, oracle.bridge()[:6].float())
    )
    assert labels["infrared"].num_clusters == 0
    assert labels["visible"].num_clusters == 1


# Check 5: cluster loss; check 6: instance loss.

QUERY = torch.tensor([[0.8, 0.6]])


class Banks:
    """A memory of given banks."""

    def __init__(self, clusters: dict[str, Bank], images: dict[str, Bank] | None = None) -> None:
        self.clusters, self.images = clusters, images or {}
        self.names = tuple(clusters)

    def bank(self, name: str) -> Bank:
        return self.clusters[name]

    def instances(self, name: str) -> Bank:
        return self.images[name]


def terms_of(kit: SimpleNamespace, label: int, memory: object, queries: Tensor = QUERY, **options: object) -> dict:
    train = kit.train_index(3, 0)
    labels = PseudoLabels(train, {"visible": torch.tensor([0, 1, 2])})
    batch = kit.batch(labels, [label] * len(queries))
    loss = HybridContrastLoss(HybridContrastOptions(**options), kit.setup(train, 2))
    return loss.terms(batch, kit.embeddings(queries), memory, kit.Epoch(train, torch.zeros(3, 2)))


CENTROIDS = Bank.of_centroids(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
IMAGES = Bank(
    torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [-0.6, 0.8]]), torch.tensor([0, 0, 1, 1, 2])
)


@pytest.mark.parametrize(("label", "expected"), [(0, 3.240670), (1, 0.040670), (2, 7.240670)])
def test_cluster_loss_is_that_of_check_5(kit: SimpleNamespace, label: int, expected: float) -> None:
    terms = terms_of(kit, label, Banks({"visible": CENTROIDS}), phi1_intra=0)
    assert_close(terms, {"hybrid-contrast/cluster/visible": torch.tensor(expected)}, atol=1e-5, rtol=0)


def test_gradient_of_the_cluster_loss_is_that_of_check_5() -> None:
    from harness.contrast import contrast

    query = QUERY.clone().requires_grad_()
    contrast(CENTROIDS, query, torch.tensor([1]), temperature=0.05).backward()
    assert_close(query.grad, torch.tensor([[0.304499, -0.623335]]), atol=1e-5, rtol=0)
    share = (QUERY @ CENTROIDS.vectors.T / 0.05).softmax(dim=1)
    assert_close(share, torch.tensor([[0.039138, 0.960146, 0.000717]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.05, [0.365736, 1.183138, 13.814107]), (0.5, [0.643267, 0.839687, 3.156260])],
)
def test_instance_loss_is_that_of_check_6(kit: SimpleNamespace, temperature: float, expected: list[float]) -> None:
    for label, value in enumerate(expected):
        found = instance_contrast(IMAGES, QUERY, torch.tensor([label]), temperature=temperature)
        assert_close(found, torch.tensor(value), atol=1e-5, rtol=0)
        memory = Banks({"visible": CENTROIDS}, {"visible": IMAGES})
        terms = terms_of(kit, label, memory, temperature=temperature, phi1_intra=0.5, phi2_intra=0)
        assert_close(terms, {"hybrid-contrast/instance/visible": torch.tensor(0.5 * value)}, atol=1e-5, rtol=0)


def naive_instance_loss(queries: Tensor, labels: Tensor, bank: Bank, temperature: float) -> Tensor:
    s = (queries @ bank.vectors.double().T / temperature).exp()
    own = (bank.cluster[None] == labels[:, None]).double()
    return -(((s * own).sum(1) / (s.sum(1) + 1e-6)) + 1e-6).log().mean()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([0.05, 0.2, 1.0]))
def test_instance_loss_and_its_gradient_are_those_of_the_formula(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    bank = Bank(normalize(torch.randn(9, 4, generator=generator), dim=1), torch.tensor([0, 0, 1, 1, 1, 2, -1, -1, 2]))
    raw, labels = torch.randn(5, 4, generator=generator), torch.tensor([0, 1, 2, 1, 0])
    exact, single = raw.double().requires_grad_(), raw.clone().requires_grad_()
    expected = naive_instance_loss(normalize(exact, dim=1), labels, bank, temperature)
    found = instance_contrast(bank, normalize(single, dim=1), labels, temperature=temperature)
    expected.backward()
    found.backward()
    assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
    assert_close(single.grad, exact.grad.float(), atol=1e-3, rtol=1e-3)


def test_instance_loss_stays_finite_where_the_plain_formula_overflows() -> None:
    query = QUERY.clone().requires_grad_()
    value = instance_contrast(IMAGES, query, torch.tensor([2]), temperature=0.005)
    value.backward()
    assert_close(value, torch.tensor(-math.log(1e-6)))
    assert bool(query.grad.isfinite().all())


def test_image_terms_of_both_modalities_can_be_averaged_apart() -> None:
    queries = torch.cat([QUERY] * 4)
    labels, modality = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 1])
    apart = instance_contrast(IMAGES, queries, labels, temperature=0.5, modality_B=modality)
    together = instance_contrast(IMAGES, queries, labels, temperature=0.5)
    assert_close(apart, torch.tensor(0.643267 + 0.839687), atol=1e-5, rtol=0)
    assert_close(together, torch.tensor((3 * 0.643267 + 0.839687) / 4), atol=1e-5, rtol=0)
    alone = instance_contrast(IMAGES, queries, labels, temperature=0.5, modality_B=torch.zeros(4, dtype=torch.int64))
    assert_close(alone, together)
    assert instance_contrast(IMAGES, queries, torch.full((4,), -1), temperature=0.5, modality_B=modality) is None


# HMCL in training.


def phase_2(kit: SimpleNamespace, *, seed: int = 0, **options: object) -> SimpleNamespace:
    """Visible and infrared clusters, joint ones over both, and the memory built on them."""
    train = kit.train_index(6, 5)
    features = torch.randn(11, 4, generator=torch.Generator().manual_seed(5))
    labels = PseudoLabels(
        train,
        {
            "visible": torch.tensor([0, 0, 1, 1, -1, 2] + [-1] * 5),
            "infrared": torch.tensor([-1] * 6 + [0, 0, 1, -1, 1]),
            "joint": torch.tensor([0, 0, 1, -1, 1, -1, 0, 0, 1, 1, -1]),
        },
    )
    memory = HybridMemory(HmclMemoryOptions(**options), kit.setup(train, 4))
    epoch = kit.Epoch(train, features, stages=2, stage_number=1, seed=seed)
    memory.build(epoch, labels)
    return SimpleNamespace(train=train, features=features, labels=labels, memory=memory, epoch=epoch)


def test_banks_start_as_normalised_means_and_normalised_features(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    unit = normalize(scene.features, dim=1)
    for name in ("visible", "infrared", "joint"):
        labels = scene.labels[name].labels
        for k, row in enumerate(scene.memory.bank(name).vectors):
            assert_close(row, normalize(unit[labels == k].mean(0), dim=0))
    for name, rows in (("visible", slice(0, 6)), ("infrared", slice(6, 11)), ("joint", slice(0, 11))):
        bank = scene.memory.instances(name)
        assert_close(bank.vectors, unit[rows])
        assert torch.equal(bank.cluster, scene.labels[name].labels[rows])
        assert bank.modality.tolist() == scene.train.modality[rows].tolist()
        assert set(bank.kind.tolist()) == {BankKind.INSTANCE}
    with pytest.raises(ContractError, match="no bank of images of 'other'"):
        scene.memory.instances("other")


def test_an_outlier_is_a_negative_of_every_query(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    bank, query = scene.memory.instances("visible"), normalize(torch.ones(1, 4), dim=1)
    # A fresh cluster of its own for each outlier, as the reference has it, gives the same loss.
    single = Bank(bank.vectors, torch.where(bank.cluster < 0, 100 + torch.arange(6), bank.cluster))
    values = [instance_contrast(b, query, torch.tensor([1]), temperature=0.1) for b in (bank, single)]
    assert torch.equal(*values)
    without = Bank(bank.vectors[bank.cluster >= 0], bank.cluster[bank.cluster >= 0])
    assert float(instance_contrast(without, query, torch.tensor([1]), temperature=0.1)) < float(values[0])


def test_there_are_six_terms_in_phase_2_with_the_weights_of_the_paper(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    loss = HybridContrastLoss(HybridContrastOptions(), kit.setup(scene.train, 4))
    queries = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    terms = {}
    for draw, rows in ((scene.labels.draws[0], [0, 2, 3, 6, 7, 8]), (scene.labels.draws[1], [0, 1, 2, 6, 8, 9])):
        batch = kit.batch(scene.labels, rows, draw=draw)
        terms |= loss.terms(batch, kit.embeddings(queries), scene.memory, scene.epoch)
        for name in draw.partitions:
            chosen = batch.labels[name] >= 0
            unit, labels = normalize(queries[chosen], dim=1).double(), batch.labels[name][chosen]
            cluster = naive_cluster_loss(unit, labels, scene.memory.bank(name).vectors)
            instance = naive_instance_loss(unit, labels, scene.memory.instances(name), 0.05)
            assert_close(terms[f"hybrid-contrast/cluster/{name}"].double(), cluster, atol=1e-4, rtol=1e-4)
            assert_close(terms[f"hybrid-contrast/instance/{name}"].double(), 0.1 * instance, atol=1e-4, rtol=1e-4)
    assert set(terms) == {f"hybrid-contrast/{kind}/{x}" for kind in ("cluster", "instance") for x in scene.labels.given}
    sum(terms.values()).backward()
    assert bool(queries.grad.abs().sum(dim=1).min() > 0)


def naive_cluster_loss(queries: Tensor, labels: Tensor, bank: Tensor) -> Tensor:
    logits = queries @ bank.double().T / 0.05
    return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()


def test_terms_of_weight_zero_are_left_out(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    for zero, kind, where in (
        ("phi1_intra", "instance", 0),
        ("phi2_intra", "cluster", 0),
        ("phi1_inter", "instance", 1),
        ("phi2_inter", "cluster", 1),
    ):
        batch = kit.batch(scene.labels, [0, 2, 6], draw=scene.labels.draws[where])
        loss = HybridContrastLoss(HybridContrastOptions(**{zero: 0}), kit.setup(scene.train, 4))
        terms = loss.terms(batch, kit.embeddings(torch.randn(3, 4)), scene.memory, scene.epoch)
        assert terms
        assert not any(f"/{kind}/" in name for name in terms)


def test_there_are_no_image_terms_with_a_memory_of_clusters_only(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    memory = ClusterMemory(ClusterMemoryOptions(), kit.setup(scene.train, 4))
    memory.build(scene.epoch, scene.labels)
    loss = HybridContrastLoss(HybridContrastOptions(), kit.setup(scene.train, 4))
    notes: list[str] = []
    scene.epoch.note = notes.append
    loss.begin(scene.epoch, scene.labels, scene.memory)
    assert notes == []
    loss.begin(scene.epoch, scene.labels, memory)
    assert notes == [NO_IMAGES]
    terms = loss.terms(kit.batch(scene.labels, [0, 6]), kit.embeddings(torch.randn(2, 4)), memory, scene.epoch)
    assert set(terms) == {"hybrid-contrast/cluster/visible", "hybrid-contrast/cluster/infrared"}


def test_a_partition_without_clusters_has_no_terms(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 3)
    labels = PseudoLabels(
        train, {"visible": torch.tensor([0, 0, 1, -1, -1, -1]), "infrared": torch.full((6,), OUTLIER)}
    )
    epoch = kit.Epoch(train, torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    memory = HybridMemory(HmclMemoryOptions(), kit.setup(train, 4))
    memory.build(epoch, labels)
    batch, embeddings = kit.batch(labels, [0, 1, 2]), kit.embeddings(torch.randn(3, 4))
    loss = HybridContrastLoss(HybridContrastOptions(), kit.setup(train, 4))
    assert set(loss.terms(batch, embeddings, memory, epoch)) == {
        "hybrid-contrast/cluster/visible",
        "hybrid-contrast/instance/visible",
    }
    memory.update(batch, embeddings)
    assert memory.bank("infrared").vectors.shape == (0, 4)


def test_labels_of_a_joint_clusterer_alone_give_all_six_terms_on_one_batch(kit: SimpleNamespace) -> None:
    train = kit.train_index(2, 2)
    labels = PseudoLabels(train, {"joint": torch.tensor([0, 1, 0, 1])})
    epoch = kit.Epoch(train, torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    memory = HybridMemory(HmclMemoryOptions(), kit.setup(train, 4))
    memory.build(epoch, labels)
    batch, embeddings = kit.batch(labels, [0, 1, 2, 3]), kit.embeddings(torch.randn(4, 4))
    loss = HybridContrastLoss(HybridContrastOptions(), kit.setup(train, 4))
    assert len(loss.terms(batch, embeddings, memory, epoch)) == 6
    memory.update(batch, embeddings)
    assert_close(memory.instances("infrared").vectors, embeddings.unit()[2:])


# Check 7: memory.


def test_each_touched_row_becomes_a_query_of_its_own_and_others_stay(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    # Two views of visible images, then infrared ones; the joint batch lets all three compete.
    rows = [0, 1, 0, 1, 6, 7]
    queries = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    before = {
        n: (scene.memory.bank(n).vectors.clone(), scene.memory.instances(n).vectors.clone()) for n in scene.labels
    }
    embeddings = kit.embeddings(queries)
    scene.memory.update(kit.batch(scene.labels, rows, draw=Draw(("joint",))), embeddings)
    unit = normalize(embeddings.unit(), dim=1)  # what a bank stores, to the bit
    cluster, image = scene.memory.bank("joint").vectors, scene.memory.instances("joint").vectors
    assert any(torch.equal(cluster[0], query) for query in unit)
    assert torch.equal(cluster[1:], before["joint"][0][1:])
    for row in (0, 1):
        assert any(torch.equal(image[row], unit[place]) for place in (row, row + 2))
    assert torch.equal(image[[6, 7]], unit[[4, 5]])
    untouched = [2, 3, 4, 5, 8, 9, 10]
    assert torch.equal(image[untouched], before["joint"][1][untouched])
    for name in ("visible", "infrared"):
        assert torch.equal(scene.memory.bank(name).vectors, before[name][0])
        assert torch.equal(scene.memory.instances(name).vectors, before[name][1])


def test_infrared_images_are_written_by_their_global_index(kit: SimpleNamespace) -> None:
    scene = phase_2(kit)
    queries = torch.randn(2, 4, generator=torch.Generator().manual_seed(2))
    scene.memory.update(kit.batch(scene.labels, [3, 8]), kit.embeddings(queries))
    unit = normalize(queries, dim=1)
    assert_close(scene.memory.instances("visible").vectors[3], unit[0])
    assert_close(scene.memory.instances("infrared").vectors[2], unit[1])


def test_every_query_of_a_row_is_chosen_equally_often(kit: SimpleNamespace) -> None:
    unit = normalize(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    clusters, images = torch.zeros(4), torch.zeros(4)
    for seed in range(400):
        scene = phase_2(kit, seed=seed)
        scene.memory.update(kit.batch(scene.labels, [0, 0, 0, 0], draw=Draw(("joint",))), kit.embeddings(unit))
        clusters[(unit - scene.memory.bank("joint").vectors[0]).abs().sum(1).argmin()] += 1
        images[(unit - scene.memory.instances("joint").vectors[0]).abs().sum(1).argmin()] += 1
    # 100 expected, standard deviation 8.7
    assert clusters.min() > 65
    assert images.min() > 65


def test_the_same_seed_gives_the_same_banks(kit: SimpleNamespace) -> None:
    scenes = [phase_2(kit, seed=seed) for seed in (1, 1, 2)]
    queries = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    for scene in scenes:
        for _ in range(4):
            scene.memory.update(
                kit.batch(scene.labels, [0, 0, 1, 1] * 2, draw=Draw(("joint",))), kit.embeddings(queries)
            )
    first, same, other = (scene.memory.instances("joint").vectors for scene in scenes)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_momentum_moves_rows_by_every_query_in_random_order() -> None:
    bank, queries = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    expected = set()
    for order in (queries, queries.flip(0)):
        row = bank[0]
        for query in order:
            row = normalize(0.2 * row + 0.8 * query, dim=0)
        expected.add(round(float(row[0]), 4))
    seen = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        row = shuffled_update(bank, queries, torch.tensor([0, 0]), momentum=0.2, generator=generator)
        seen.add(round(float(row[0, 0]), 4))
    assert seen == expected
    assert len(seen) == 2
    assert_close(bank, torch.tensor([[1.0, 0.0]]))


def test_lambda_slows_both_kinds_of_rows(kit: SimpleNamespace) -> None:
    scene = phase_2(kit, momentum=0.5)
    expected = {}
    query = normalize(torch.randn(1, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    for kind in ("bank", "instances"):
        expected[kind] = normalize(0.5 * getattr(scene.memory, kind)("joint").vectors[0] + 0.5 * query[0], dim=0)
    scene.memory.update(kit.batch(scene.labels, [0], draw=Draw(("joint",))), kit.embeddings(query))
    for kind, row in expected.items():
        assert_close(getattr(scene.memory, kind)("joint").vectors[0], row)


def next_epoch(kit: SimpleNamespace, scene: SimpleNamespace, memory: HybridMemory, *, stage: int = 1) -> Tensor:
    """The image bank after building another epoch, with other features and labels, on this memory."""
    features = torch.randn(11, 4, generator=torch.Generator().manual_seed(77))
    memory.build(
        kit.Epoch(scene.train, features, index=1, stages=2, stage_number=stage),
        scene.labels.drop(torch.arange(11) == 1),
    )
    return memory.instances("joint").vectors


@pytest.mark.parametrize(("rule", "stage", "kept"), [("epoch", 1, False), ("phase", 1, True), ("phase", 0, False)])
def test_image_rows_outlive_an_epoch_only_if_asked_for_and_within_a_stage(
    kit, rule: str, stage: int, kept: bool
) -> None:
    scene = phase_2(kit, reinit_instance_bank=rule)
    queries = kit.embeddings(torch.randn(1, 4, generator=torch.Generator().manual_seed(2)))
    scene.memory.update(kit.batch(scene.labels, [0], draw=Draw(("joint",))), queries)
    before = scene.memory.instances("joint").vectors.clone()
    after = next_epoch(kit, scene, scene.memory, stage=stage)
    assert torch.equal(after, before) == kept
    assert scene.memory.instances("joint").cluster[1] == OUTLIER


@pytest.mark.parametrize("rule", ["epoch", "phase"])
def test_a_restart_goes_on_with_the_same_rows(kit: SimpleNamespace, rule: str) -> None:
    scene = phase_2(kit, reinit_instance_bank=rule)
    queries = kit.embeddings(torch.randn(1, 4, generator=torch.Generator().manual_seed(2)))
    scene.memory.update(kit.batch(scene.labels, [0], draw=Draw(("joint",))), queries)
    state = {name: tensor.clone() for name, tensor in scene.memory.state_dict().items()}
    assert (state == {}) == (rule == "epoch")
    resumed = HybridMemory(HmclMemoryOptions(reinit_instance_bank=rule), kit.setup(scene.train, 4))
    resumed.load_state_dict(state)
    assert torch.equal(next_epoch(kit, scene, resumed), next_epoch(kit, scene, scene.memory))


# Check 8: reductions.


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), form=st.sampled_from(["nested", "flat"]), k2=st.integers(1, 9))
def test_with_a_single_camera_the_distance_is_the_ordinary_one(seed: int, form: str, k2: int) -> None:
    features, _ = oracle.crowd(seed, 40)
    expansion = InvariantExpansion(groups_of([(1, 3)] * 40), form)
    found = expanded_jaccard(features, k1=9, width=k2, expansion=expansion)
    np.testing.assert_allclose(
        oracle.dense(found), oracle.dense(k_reciprocal_jaccard(features, k1=9, k2=k2)), atol=1e-12
    )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), form=st.sampled_from(["nested", "flat"]))
def test_renaming_the_cameras_of_a_modality_changes_nothing(seed: int, form: str) -> None:
    features, groups = oracle.crowd(seed, 40)
    renamed = [(m, {1: 4, 2: 1, 4: 2, 3: 6, 6: 3}[c]) for m, c in groups]
    found = [
        oracle.dense(expanded_jaccard(features, k1=12, width=8, expansion=InvariantExpansion(groups_of(g), form)))
        for g in (groups, renamed)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)


def test_nothing_is_stored_for_neighbours_left_out_and_nothing_grows_with_the_square() -> None:
    total = 3000
    ranking = (np.arange(total)[:, None] + np.arange(9)) % total
    groups = CameraGroups.of(torch.arange(total) % 2, torch.arange(total) % 6)
    averages = InvariantExpansion(groups)(ranking, 7)
    assert averages.nnz == 7 * total
    np.testing.assert_allclose(averages.sum(axis=1), 1)


def test_the_whole_method_offers_its_parts() -> None:
    assert [p.name for p in Dmic.harness_clusterers()] == ["dnc"]
    assert [p.name for p in Dmic.harness_memories()] == ["hmcl"]
    assert [p.name for p in Dmic.harness_losses()] == ["hybrid-contrast"]
    assert HYBRID_CONTRAST.resolve_options("sysu-mm01", {}).temperature == 0.05


@pytest.mark.parametrize(
    ("dataset", "stages"),
    [
        ("sysu-mm01", [(50, 200, False), (50, 200, True)]),
        ("regdb", [(50, 100, False), (50, 100, True)]),
        ("rendered", [(6, 20, False), (6, 20, True)]),
    ],
)
def test_recipe_is_that_of_section_4(dataset: str, stages: list) -> None:
    recipe = Dmic.harness_recipe(dataset)
    assert [(stage.epochs, stage.iterations, stage.cross) for stage in recipe.stages] == stages
    if dataset != "rendered":
        assert (recipe.visible_clusters, recipe.infrared_clusters, recipe.instances) == (4, 4, 16)
        assert (recipe.learning_rate, recipe.weight_decay, recipe.step_epochs, recipe.step) == (3.5e-4, 5e-4, 20, "sum")
