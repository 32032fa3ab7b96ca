"""The baseline's parts and PGM, against the worked numbers of baseline.md 9."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from harness.contracts import OUTLIER, Draw, PseudoLabels, TrainIndex
from harness.errors import ContractError
from harness_baseline import (
    ClusterMemoryOptions,
    ContrastOptions,
    CrossContrastOptions,
    DbscanOptions,
    PgmOptions,
)
from harness_baseline.clusterer import ModalityDbscan
from harness_baseline.losses import ContrastLoss, CrossContrastLoss
from harness_baseline.memory import ClusterMemory
from harness_baseline.pgm import ProgressiveGraphMatching

LABELS_A, LABELS_B = [0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 2, 2]
GRADIENT_A = [[-0.003432, -0.001286, -0.002461, -0.00189], [-0.087724, 0.999918, 0.545727, -0.281893]]
BANK_MEAN_01 = [
    [-0.508656, 0.722657, -0.445511, -0.143373],
    [-0.124093, 0.425373, -0.603804, 0.66263],
    [0.235654, -0.498057, 0.617904, -0.560893],
]
BANK_MEAN_02 = [
    [-0.44111, 0.746363, -0.497015, -0.036603],
    [-0.026083, 0.450388, -0.671875, 0.587413],
    [0.127521, -0.439259, 0.625272, -0.632317],
]
BANK_REVERSED_01 = [
    [0.346507, 0.46299, 0.545306, 0.606807],
    [0.583455, 0.469895, -0.352886, -0.560581],
    [0.235654, -0.498057, 0.617904, -0.560893],
]
BANK_HARD_01 = [
    [-0.499117, 0.782981, -0.337416, -0.154833],
    [0.623438, 0.360972, -0.34549, -0.601383],
    [0.235654, -0.498057, 0.617904, -0.560893],
]
BANK_HARD_02 = [
    [-0.430464, 0.857749, -0.267992, -0.084538],
    [0.661391, 0.265258, -0.430639, -0.553851],
    [0.127521, -0.439259, 0.625272, -0.632317],
]
BANK_RELEASED = [
    [-0.443634, 0.742849, -0.500503, -0.029341],
    [-0.040103, 0.517468, -0.620466, 0.587913],
    [0.244695, -0.523404, 0.632701, -0.515618],
]
GRADIENT_FROZEN = [
    [-0.003432, -0.001286, -0.002461, -0.00189],
    [-0.087724, 0.999918, 0.545727, -0.281893],
    [-0.34756, -0.967716, -0.742832, -0.001984],
]
GRADIENT_RELEASED = [
    [0.00053, -0.003083, 0.004224, -0.002124],
    [0.208567, 0.225271, -0.446248, -0.524968],
    [-0.104418, -0.558825, 0.877186, 0.166511],
]


def bank_rows() -> Tensor:
    j = torch.arange(4, dtype=torch.float64) + 1
    return normalize(torch.cos(1.3 * torch.arange(3)[:, None] * j + 0.2), dim=1).float()


def queries() -> Tensor:
    j = torch.arange(4, dtype=torch.float64) + 1
    return normalize(torch.sin(0.7 * torch.arange(6)[:, None] * j + 0.5 * j), dim=1).float()


class Bench:
    """Three visible clusters whose prototypes are check M's bank, three infrared ones; batches of six queries."""

    def __init__(self, kit: SimpleNamespace, **options: object) -> None:
        self.kit = kit
        # Rows 0-2 make the bank; the other images are outliers that lend their rows of the index to the batch.
        self.train = kit.train_index(9, 6)
        features = torch.cat([bank_rows(), queries(), bank_rows(), bank_rows()])
        visible = torch.full((15,), OUTLIER)
        visible[:3] = torch.arange(3)
        infrared = torch.full((15,), OUTLIER)
        infrared[9:12] = torch.arange(3)
        self.labels = PseudoLabels(self.train, {"visible": visible, "infrared": infrared})
        self.epoch = kit.Epoch(self.train, features)
        self.memory = ClusterMemory(ClusterMemoryOptions(**options), kit.setup(self.train, 4))
        self.memory.build(self.epoch, self.labels)

    def batch(self, labels: list[int], *, scope: str = "visible", links: PseudoLabels | None = None):
        batch = self.kit.batch(links or self.labels, torch.zeros(len(labels), dtype=torch.int64))
        other = "infrared" if scope == "visible" else "visible"
        given = {scope: torch.tensor(labels), other: torch.full((len(labels),), OUTLIER)}
        return type(batch)(
            batch.index,
            batch.modality,
            batch.camera,
            batch.view,
            given,
            batch.draw,
            batch.pseudo_labels,
        )

    def update(self, rows: Tensor, labels: list[int]) -> Tensor:
        self.memory.update(self.batch(labels), self.kit.embeddings(rows))
        return self.memory.bank("visible").vectors


@pytest.fixture
def bench(kit: SimpleNamespace) -> type:
    return lambda **options: Bench(kit, **options)


def contrast_loss(bench: Bench, rows: Tensor, labels: list[int], temperature: float = 0.2) -> Tensor:
    loss = ContrastLoss(ContrastOptions(temperature=temperature), bench.memory.setup)
    terms = loss.terms(bench.batch(labels), bench.kit.embeddings(rows), bench.memory, bench.epoch)
    assert set(terms) == {"contrast/visible"}
    return terms["contrast/visible"]


@pytest.mark.parametrize(("temperature", "expected"), [(0.2, 2.479860), (0.05, 8.683582)])
def test_contrast_gives_the_loss_of_check_m(bench, temperature: float, expected: float) -> None:
    value = contrast_loss(bench(), queries(), LABELS_A, temperature)
    assert_close(value, torch.tensor(expected), atol=2e-5, rtol=0)


def test_contrast_gives_the_gradient_of_check_m_and_none_to_the_bank(bench) -> None:
    scene = bench()
    rows = queries().requires_grad_()
    loss = ContrastLoss(ContrastOptions(temperature=0.2), scene.memory.setup)
    embeddings = scene.kit.embeddings(rows)
    unit = embeddings.unit()
    unit.retain_grad()
    loss.terms(scene.batch(LABELS_A), embeddings, scene.memory, scene.epoch)["contrast/visible"].backward()
    assert_close(unit.grad[:2], torch.tensor(GRADIENT_A), atol=1e-5, rtol=0)
    assert not scene.memory.bank("visible").vectors.requires_grad


@pytest.mark.parametrize(
    ("mode", "momentum", "reverse", "expected"),
    [
        ("mean", 0.1, False, BANK_MEAN_01),
        ("mean", 0.2, False, BANK_MEAN_02),
        ("mean", 0.1, True, BANK_REVERSED_01),
        ("hard", 0.1, False, BANK_HARD_01),
        ("hard", 0.2, False, BANK_HARD_02),
        ("mean-then-hard", 0.2, False, BANK_HARD_02),
    ],
)
def test_update_gives_the_banks_of_check_m(bench, mode: str, momentum: float, reverse: bool, expected: list) -> None:
    rows, labels = queries(), LABELS_A
    if reverse:
        rows, labels = rows.flip(0), labels[::-1]
    after = bench(mode=mode, momentum=momentum).update(rows, labels)
    assert_close(after, torch.tensor(expected), atol=1e-5, rtol=0)


def test_mean_then_hard_is_mean_in_intra_modality_stages(bench) -> None:
    scene = bench(mode="mean-then-hard", momentum=0.2)
    scene.epoch.cross = False
    scene.memory.build(scene.epoch, scene.labels)
    assert_close(scene.update(queries(), LABELS_A), torch.tensor(BANK_MEAN_02), atol=1e-5, rtol=0)


def test_update_ignores_outliers_and_leaves_other_banks(bench) -> None:
    scene = bench(momentum=0.2)
    infrared = scene.memory.bank("infrared").vectors.clone()
    rows = torch.cat([queries(), torch.ones(2, 4)])
    assert_close(scene.update(rows, [*LABELS_A, OUTLIER, OUTLIER]), torch.tensor(BANK_MEAN_02), atol=1e-5, rtol=0)
    assert_close(scene.memory.bank("infrared").vectors, infrared)


@pytest.mark.parametrize(
    ("memory_grad", "gradient", "bank"),
    [("clean", GRADIENT_FROZEN, None), ("released", GRADIENT_RELEASED, BANK_RELEASED)],
)
def test_two_losses_on_one_bank_follow_check_m3(bench, memory_grad: str, gradient: list, bank: list | None) -> None:
    scene = bench(memory_grad=memory_grad, momentum=0.2)
    first, second = scene.kit.embeddings(queries().requires_grad_()), scene.kit.embeddings(normalized_reverse())
    loss = ContrastLoss(ContrastOptions(temperature=0.2), scene.memory.setup)
    unit = first.unit()
    unit.retain_grad()
    one = loss.terms(scene.batch(LABELS_A), first, scene.memory, scene.epoch)["contrast/visible"]
    two = loss.terms(scene.batch(LABELS_B), second, scene.memory, scene.epoch)["contrast/visible"]
    assert_close(torch.stack([one, two]).detach(), torch.tensor([2.479860, 3.408773]), atol=2e-5, rtol=0)
    (one + 0.25 * two).backward()
    scene.memory.update(scene.batch(LABELS_A), first.detach())
    assert_close(unit.grad[:3], torch.tensor(gradient), atol=2e-5, rtol=0)
    if bank is not None:
        assert_close(scene.memory.bank("visible").vectors, torch.tensor(bank), atol=1e-5, rtol=0)


def normalized_reverse() -> Tensor:
    return queries().flip(1).requires_grad_()


def test_released_update_leaves_losses_on_the_plain_vectors_alone(bench) -> None:
    scene = bench(memory_grad="released")
    embeddings = scene.kit.embeddings(queries().requires_grad_())
    plain = (embeddings.unit() @ scene.memory.bank("visible").vectors.T).sum()
    loss = ContrastLoss(ContrastOptions(), scene.memory.setup)
    term = loss.terms(scene.batch(LABELS_A), embeddings, scene.memory, scene.epoch)["contrast/visible"]
    (plain + term).backward()


def test_memory_starts_from_unit_cluster_means_of_every_available_partition(kit: SimpleNamespace) -> None:
    train = kit.train_index(3, 2)
    features = kit.at_degrees(0, 20, 90, 10, 80)
    labels = PseudoLabels(train, {"joint": torch.tensor([0, 0, 1, 0, 1])})
    memory = ClusterMemory(ClusterMemoryOptions(), kit.setup(train, 2))
    memory.build(kit.Epoch(train, features), labels)
    assert set(memory.names) == {"joint", "visible", "infrared"}
    assert_close(memory.bank("joint").vectors, kit.at_degrees(10, 85))
    assert_close(memory.bank("visible").vectors, kit.at_degrees(10, 90))
    assert_close(memory.bank("infrared").vectors, kit.at_degrees(10, 80))


def test_asking_for_a_bank_that_is_not_there_names_those_that_are(bench) -> None:
    with pytest.raises(ContractError, match="visible/main"):
        bench().memory.bank("joint")


@pytest.mark.parametrize("cross", [True, False])
def test_cma_gives_the_banks_of_ecul_check_5_in_cross_stages_only(kit: SimpleNamespace, cross: bool) -> None:
    train = kit.train_index(4, 3)
    features = torch.tensor([[1, 0], [0.96, 0.28], [0.6, 0.8], [0, 1], [0.8, 0.6], [0.28, 0.96], [-0.6, 0.8]])
    visible, infrared = torch.tensor([0, 0, 1, 1, -1, -1, -1]), torch.tensor([-1, -1, -1, -1, 0, 1, 1])
    labels = PseudoLabels(train, {"visible": visible, "infrared": infrared})
    memory = ClusterMemory(ClusterMemoryOptions(association="cma"), kit.setup(train, 2))
    memory.build(kit.Epoch(train, features, cross=cross), labels)
    plain = torch.tensor([[0.989949, 0.141421], [0.316228, 0.948683]])
    aggregated = torch.tensor([[0.818995, 0.554142], [-0.129374, 0.980351]])
    assert_close(memory.bank("visible").vectors, aggregated if cross else plain, atol=1e-5, rtol=0)
    means = torch.stack([features[4], normalize(features[5:].mean(0), dim=0)])
    assert_close(memory.bank("infrared").vectors, means, atol=1e-5, rtol=0)


def test_cma_matches_the_pairs_of_check_c(kit: SimpleNamespace) -> None:
    t = torch.arange(3, dtype=torch.float64) + 1
    visible = normalize(torch.cos(0.5 * torch.arange(6)[:, None] * t), dim=1).float()
    infrared = normalize(torch.cos(0.6 * torch.arange(5)[:, None] * t + 0.2), dim=1).float()
    train = kit.train_index(6, 5)
    absent = OUTLIER * torch.ones(6, dtype=torch.int64)
    labels = PseudoLabels(
        train,
        {
            "visible": torch.cat([torch.tensor([0, 0, 1, 1, 2, -1]), absent[:5]]),
            "infrared": torch.cat([absent, torch.tensor([0, 0, 1, -1, 1])]),
        },
    )
    epoch = kit.Epoch(train, torch.cat([visible, infrared]))
    banks = {}
    for association in ("off", "cma"):
        memory = ClusterMemory(ClusterMemoryOptions(association=association), kit.setup(train, 3))
        memory.build(epoch, labels)
        banks[association] = memory.bank("visible").vectors
    other = memory.bank("infrared").vectors
    assert_close(banks["cma"][:2], 0.1 * banks["off"][:2] + 0.9 * other)
    assert_close(banks["cma"][2], banks["off"][2])


def pgm_scene(kit: SimpleNamespace, num_visible: int, num_infrared: int) -> tuple:
    """Check P: every cluster is one image, so that the images are the centroids."""
    j = torch.arange(4, dtype=torch.float64) + 1
    visible = normalize(torch.cos(1.1 * torch.arange(num_visible)[:, None] * j + 0.3), dim=1).float()
    infrared = normalize(torch.cos(0.7 * torch.arange(num_infrared)[:, None] * j + 0.6), dim=1).float()
    train = kit.train_index(num_visible, num_infrared)
    v, r = torch.arange(num_visible), torch.arange(num_infrared)
    labels = PseudoLabels(
        train,
        {
            "visible": torch.cat([v, torch.full_like(r, OUTLIER)]),
            "infrared": torch.cat([torch.full_like(v, OUTLIER), r]),
        },
    )
    return train, torch.cat([visible, infrared]), labels


def test_pgm_links_clusters_as_in_check_p(kit: SimpleNamespace) -> None:
    train, features, labels = pgm_scene(kit, 5, 3)
    refiner = ProgressiveGraphMatching(PgmOptions(), kit.setup(train, 4))
    linked = refiner.refine(kit.Epoch(train, features), labels)
    assert linked.link("visible", "infrared").tolist() == [0, 1, 1, 2, 2]
    assert linked.link("infrared", "visible").tolist() == [0, 1, 4]
    assert labels.links == {}


def test_pgm_leaves_no_cluster_without_a_partner(kit: SimpleNamespace) -> None:
    for shape in ((8, 3), (2, 3), (3, 8)):
        train, features, labels = pgm_scene(kit, *shape)
        refiner = ProgressiveGraphMatching(PgmOptions(), kit.setup(train, 4))
        linked = refiner.refine(kit.Epoch(train, features), labels)
        assert int(linked.link("visible", "infrared").min()) >= 0
        assert int(linked.link("infrared", "visible").min()) >= 0
        if shape == (8, 3):
            links = linked.link("visible", "infrared").tolist()
            assert [links[k] for k in (0, 5, 7, 1, 4, 6)] == [0, 1, 2, 1, 2, 0]


def test_mutual_matching_links_only_nearest_pairs(kit: SimpleNamespace) -> None:
    train, features, labels = pgm_scene(kit, 5, 3)
    refiner = ProgressiveGraphMatching(PgmOptions(matching="mutual"), kit.setup(train, 4))
    linked = refiner.refine(kit.Epoch(train, features), labels)
    assert linked.link("visible", "infrared").tolist() == [0, 1, -1, -1, 2]
    assert linked.link("infrared", "visible").tolist() == [0, 1, 4]


def test_pgm_does_nothing_in_intra_modality_stages_or_without_clusters(kit: SimpleNamespace) -> None:
    train, features, labels = pgm_scene(kit, 5, 3)
    refiner = ProgressiveGraphMatching(PgmOptions(), kit.setup(train, 4))
    assert refiner.refine(kit.Epoch(train, features, cross=False), labels) is labels
    empty = labels.drop(train.infrared)
    assert refiner.refine(kit.Epoch(train, features), empty) is empty


def cross_scene(kit: SimpleNamespace, *, epoch: int, cross_update: str = "alternate", cross: bool = True) -> tuple:
    train, features, labels = pgm_scene(kit, 5, 3)
    now = kit.Epoch(train, features, index=epoch, cross=cross)
    labels = ProgressiveGraphMatching(PgmOptions(), kit.setup(train, 4)).refine(now, labels)
    memory = ClusterMemory(ClusterMemoryOptions(cross_update=cross_update), kit.setup(train, 4))
    memory.build(now, labels)
    return now, labels, memory, kit.batch(labels, torch.arange(8)), kit.embeddings(features)


@pytest.mark.parametrize(
    ("epoch", "direction", "expected"),
    [
        (0, "alternate", {"cross-contrast/visible"}),
        (1, "alternate", {"cross-contrast/infrared"}),
        (2, "alternate", {"cross-contrast/visible"}),
        (3, "alternate", {"cross-contrast/infrared"}),
        (1, "both", {"cross-contrast/visible", "cross-contrast/infrared"}),
    ],
)
def test_cross_contrast_alternates_by_the_parity_of_the_epoch(kit, epoch: int, direction: str, expected: set) -> None:
    now, _, memory, batch, embeddings = cross_scene(kit, epoch=epoch)
    loss = CrossContrastLoss(CrossContrastOptions(direction=direction), memory.setup)
    assert set(loss.terms(batch, embeddings, memory, now)) == expected


def test_cross_contrast_is_the_cross_entropy_with_linked_labels_times_a_quarter(kit: SimpleNamespace) -> None:
    now, _, memory, batch, embeddings = cross_scene(kit, epoch=0)
    term = CrossContrastLoss(CrossContrastOptions(), memory.setup).terms(batch, embeddings, memory, now)
    logits = embeddings.unit()[:5] @ memory.bank("infrared").vectors.T / 0.05
    expected = 0.25 * torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 2, 2]))
    assert_close(term["cross-contrast/visible"], expected)


def test_cross_contrast_is_silent_without_links_or_outside_cross_stages(kit: SimpleNamespace) -> None:
    now, labels, memory, _, embeddings = cross_scene(kit, epoch=0)
    loss = CrossContrastLoss(CrossContrastOptions(), memory.setup)
    unlinked = PseudoLabels(labels.train, {name: labels[name] for name in ("visible", "infrared")})
    assert loss.terms(kit.batch(unlinked, torch.arange(8)), embeddings, memory, now) == {}
    now.cross = False
    assert loss.terms(kit.batch(labels, torch.arange(8)), embeddings, memory, now) == {}


@pytest.mark.parametrize(("epoch", "changed"), [(0, "infrared"), (1, "visible")])
def test_linked_queries_also_update_the_other_bank_after_its_own(kit, epoch: int, changed: str) -> None:
    banks = {}
    for cross_update in ("off", "alternate"):
        _, _, memory, batch, embeddings = cross_scene(kit, epoch=epoch, cross_update=cross_update)
        moved = embeddings.main + 0.3
        memory.update(batch, kit.embeddings(moved))
        banks[cross_update] = {name: memory.bank(name).vectors for name in ("visible", "infrared")}
    other = "visible" if changed == "infrared" else "infrared"
    assert_close(banks["off"][other], banks["alternate"][other])
    start = banks["off"][changed].clone()
    rows = normalize(moved, dim=1)
    linked = {"infrared": [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)], "visible": [(5, 0), (6, 1), (7, 4)]}[changed]
    for row, slot in linked:
        start[slot] = normalize(0.1 * start[slot] + 0.9 * rows[row], dim=0)
    assert_close(banks["alternate"][changed], start)


def test_contrast_of_a_two_modality_draw_is_one_mean_per_modality(kit: SimpleNamespace) -> None:
    now, labels, memory, batch, embeddings = cross_scene(kit, epoch=0)
    terms = ContrastLoss(ContrastOptions(weight=2.0), memory.setup).terms(batch, embeddings, memory, now)
    for name, rows in (("visible", slice(0, 5)), ("infrared", slice(5, 8))):
        logits = embeddings.unit()[rows] @ memory.bank(name).vectors.T / 0.05
        expected = 2 * torch.nn.functional.cross_entropy(logits, labels[name].labels[rows])
        assert_close(terms[f"contrast/{name}"], expected)


def test_modality_dbscan_finds_the_people_of_each_modality(kit, people: tuple[TrainIndex, Tensor]) -> None:
    train, features = people
    options = DbscanOptions(k1=8, k2=3, eps=0.6, min_samples=3)
    labels = ModalityDbscan(options, kit.setup(train, 24)).cluster(kit.Epoch(train, features))
    assert labels.given == ("visible", "infrared")
    truth = torch.arange(12).repeat_interleave(8)
    assert_close(labels["visible"].labels[:96], truth)
    assert_close(labels["infrared"].labels[96:], truth)


def test_camera_centring_undoes_an_offset_of_one_camera(kit, people: tuple[TrainIndex, Tensor]) -> None:
    train, features = people
    camera = torch.where(train.visible, 1 + torch.arange(192) % 2, 3)
    shifted = normalize(features + 2 * (camera == 2)[:, None] * torch.eye(24)[5], dim=1)
    counts = {}
    for centre in (False, True):
        options = DbscanOptions(k1=8, k2=3, eps=0.6, min_samples=3, centre_cameras=centre)
        index = TrainIndex(train.modality, camera)
        labels = ModalityDbscan(options, kit.setup(index, 24)).cluster(kit.Epoch(index, shifted))
        counts[centre] = labels["visible"].num_clusters
    assert counts[True] == 12
    assert counts[False] != 12


def test_labels_that_are_all_outliers_give_no_terms_and_no_crash(kit: SimpleNamespace) -> None:
    train, features, labels = pgm_scene(kit, 5, 3)
    labels = labels.drop(torch.ones(8, dtype=torch.bool))
    now = kit.Epoch(train, features)
    memory = ClusterMemory(ClusterMemoryOptions(association="cma"), kit.setup(train, 4))
    memory.build(now, labels)
    batch, embeddings = kit.batch(labels, [0, 6], draw=Draw(("visible", "infrared"))), kit.embeddings(features[[0, 6]])
    for loss in (
        ContrastLoss(ContrastOptions(), memory.setup),
        CrossContrastLoss(CrossContrastOptions(), memory.setup),
    ):
        assert loss.terms(batch, embeddings, memory, now) == {}
    memory.update(batch, embeddings)


def test_one_cluster_gives_a_loss_of_zero(kit: SimpleNamespace) -> None:
    train, features, _ = pgm_scene(kit, 5, 3)
    labels = PseudoLabels(train, {"visible": torch.tensor([0, 0, 0, 0, 0, -1, -1, -1])})
    memory = ClusterMemory(ClusterMemoryOptions(), kit.setup(train, 4))
    now = kit.Epoch(train, features)
    memory.build(now, labels)
    batch = kit.batch(labels, torch.arange(5))
    terms = ContrastLoss(ContrastOptions(), memory.setup).terms(batch, kit.embeddings(features[:5]), memory, now)
    assert float(terms["contrast/visible"]) == 0
