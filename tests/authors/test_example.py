"""The example: a published method in a package of its own, through the public API alone."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import harness
from harness.clustering.neighbours import nearest_neighbours
from harness.contracts import Batch, Embeddings, EpochContext, PseudoLabels, Setup, TrainIndex
from harness.plugins import load
from harness_baseline.losses import ContrastLoss
from harness_baseline.memory import ClusterMemory
from harness_baseline.options import ClusterMemoryOptions
from harness_baseline.options import ContrastOptions as BaselineContrastOptions

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "harness-adca"
SOURCES = sorted((EXAMPLE / "harness_adca").glob("*.py"))


@pytest.fixture(autouse=True)
def importable(monkeypatch) -> None:
    """The example as if it were installed."""
    monkeypatch.syspath_prepend(EXAMPLE)


def imports(path: Path) -> list[tuple[str, str]]:
    """Every ``from module import name`` of a file, and every ``import module`` with an empty name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found += [(str(node.module), alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_imports_of_the_harness_only_public_names(path: Path) -> None:
    for module, name in imports(path):
        root = module.split(".")[0]
        assert root in sys.stdlib_module_names | {"torch", "pydantic", "harness", "harness_adca"}, module
        if root == "harness":
            assert module == "harness"
            assert name in harness.__all__


def test_it_is_no_plugin_of_this_repository() -> None:
    ours = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "adca" not in ours["project"]["entry-points"]["harness.plugins"]
    assert "harness_adca" not in ours["tool"]["importlinter"]["root_packages"]


def test_its_card_lists_every_option_with_its_default() -> None:
    from harness_adca import Adca

    found = load("adca", Adca)
    assert found.problem is None
    card = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for provider in found.providers:
        for option, field in provider.options.model_fields.items():
            assert f"| `{provider.name}.{option}` | {field.default}" in card


class Given(EpochContext):
    """An epoch whose features are given."""

    def __init__(self, train: TrainIndex, features: torch.Tensor, *, cross: bool) -> None:
        self.train, self.cross, self._features = train, cross, features

    @property
    def rng(self):
        raise NotImplementedError

    def features(self, *, encoder="online", embedding="main", view="plain"):
        return self._features

    def neighbours(self, features_ND, k):
        return nearest_neighbours(features_ND, k)


@pytest.fixture
def people() -> tuple[TrainIndex, torch.Tensor, PseudoLabels]:
    """Eight people, six visible and six infrared images of each; one of the visible clusters has no infrared one."""
    generator = torch.Generator().manual_seed(7)
    centres = normalize(torch.randn(8, 16, generator=generator), dim=1).repeat_interleave(6, 0)
    features = normalize(torch.cat([centres, centres]) + 0.1 * torch.randn(96, 16, generator=generator), dim=1)
    modality = torch.arange(2).repeat_interleave(48)
    train = TrainIndex(modality=modality, camera=modality + 1)
    person = (torch.arange(96) % 48) // 6
    visible, infrared = torch.where(modality == 0, person, -1), torch.where(modality == 1, person, -1)
    infrared = torch.where(infrared == 7, -1, infrared)
    visible[3] = -1
    return train, features, PseudoLabels(train, {"visible": visible, "infrared": infrared})


@pytest.mark.parametrize("cross", [True, False])
def test_its_banks_and_losses_are_those_of_the_baselines_own_aggregation(people, cross: bool) -> None:
    from harness_adca.association import Association
    from harness_adca.losses import DualContrast
    from harness_adca.memory import AggregatedMemory
    from harness_adca.options import AssociationOptions, ContrastOptions, MemoryOptions

    train, features, labels = people
    setup = Setup(train=train, dataset="test", embedding_dims={"main": 16})
    epoch = Given(train, features, cross=cross)
    linked = Association(AssociationOptions(), setup).refine(epoch, labels)
    ours, theirs = (
        AggregatedMemory(MemoryOptions(), setup),
        ClusterMemory(ClusterMemoryOptions(association="cma", cross_update="off"), setup),
    )
    ours.build(epoch, linked)
    theirs.build(epoch, labels)
    rows = torch.randperm(96, generator=torch.Generator().manual_seed(1))[:40]
    batch = batch_of(labels, rows)
    embeddings = Embeddings({"main": features[rows].roll(1, 0)})
    for _ in range(2):
        for name in ("visible", "infrared"):
            assert torch.equal(ours.bank(name).vectors, theirs.bank(name).vectors)
            assert ours.bank(name).unit == theirs.bank(name).unit
        own = DualContrast(ContrastOptions(), setup).terms(batch, embeddings, ours, epoch)
        other = ContrastLoss(BaselineContrastOptions(), setup).terms(batch, embeddings, theirs, epoch)
        assert list(own.values()) == list(other.values())
        assert len(own) == 2
        ours.update(batch, embeddings)
        theirs.update(batch, embeddings)
    changed = ours.bank("visible").vectors
    assert bool(cross) == (not torch.allclose(changed, without_association(setup, labels, epoch, batch, embeddings)))


def batch_of(labels: PseudoLabels, rows: torch.Tensor) -> Batch:
    draw = labels.draws[0]
    ids = {name: labels[name].labels[rows] for name in draw.partitions}
    train = labels.train
    return Batch(rows, train.modality[rows], train.camera[rows], torch.zeros_like(rows), ids, draw, labels)


def without_association(setup: Setup, labels: PseudoLabels, epoch: Given, batch: Batch, embeddings: Embeddings):
    """The visible bank that the baseline's memory would have after the same two updates."""
    memory = ClusterMemory(ClusterMemoryOptions(cross_update="off"), setup)
    memory.build(epoch, labels)
    for _ in range(2):
        memory.update(batch, embeddings)
    return memory.bank("visible").vectors


@pytest.mark.parametrize("matching", ["votes", "mutual"])
def test_it_links_the_clusters_of_one_person_and_leaves_alone_who_has_no_counterpart(people, matching: str) -> None:
    from harness_adca.association import Association
    from harness_adca.options import AssociationOptions

    train, features, labels = people
    setup = Setup(train=train, dataset="test", embedding_dims={"main": 16})
    refiner = Association(AssociationOptions(matching=matching), setup)
    linked = refiner.refine(Given(train, features, cross=True), labels)
    assert linked.link("visible", "infrared").tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    assert linked.link("infrared", "visible").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert labels.links == {}
    assert refiner.refine(Given(train, features, cross=False), labels) is labels
