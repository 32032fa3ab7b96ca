"""Any clusterer, any refiners, any memory, all losses: one step of training with each combination."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from harness_baseline import Baseline, Pgm
from harness_chcr import Chcr
from harness_dmic import Dmic
from harness_ecul import Ecul, Tsmem
from harness_hil import Hil
from harness_pclhd import Pclhd

DBSCAN = {"k2": 3, "min_samples": 3}
OPTIONS = {
    "modality-dbscan": {**DBSCAN, "k1": 8},
    "chc": {**DBSCAN, "k1": 14, "apart_k1": 8},
    "ipr": {**DBSCAN, "k1": 14},
    "dnc": {"min_samples": 3, "k1_intra": 8, "k1_joint": 14, "k2_intra": 3, "k2_joint": 3},
    "emcc": {"min_samples": 3, "k1_intra": 8, "k1_joint": 14, "k2_intra": 3, "k2_joint": 3},
}
CLUSTERERS = [
    *Baseline.harness_clusterers(), *Chcr.harness_clusterers(), *Dmic.harness_clusterers(), *Ecul.harness_clusterers(),
]  # fmt: skip
REFINERS = [*Pgm.harness_label_refiners(), *Chcr.harness_label_refiners()]
OTHERS = [*Hil.harness_label_refiners(), *list(Pclhd.harness_label_refiners())[1:]]
MEMORIES = [
    *Baseline.harness_memories(), *Chcr.harness_memories(), *Tsmem.harness_memories(), *Dmic.harness_memories(),
    *Ecul.harness_memories(), *Pclhd.harness_memories(), *Hil.harness_memories(),
]  # fmt: skip
LOSSES = {
    provider.name: provider for method in (Pgm, Chcr, Dmic, Ecul, Pclhd, Hil) for provider in method.harness_losses()
}.values()
CHAINS = [(), (REFINERS[0],), (REFINERS[1],), tuple(REFINERS), tuple(reversed(REFINERS))]
CHAINS += [(refiner,) for refiner in OTHERS]


def made(provider, setup, **options):
    resolved = provider.resolve_options("test", {**OPTIONS.get(provider.name, {}), **options})
    return provider.load()(resolved, setup)


def name_of(value) -> str:
    return "+".join(part.name for part in value) or "none" if isinstance(value, tuple) else value.name


@pytest.mark.parametrize("cross", [True, False], ids=["cross", "intra"])
@pytest.mark.parametrize("memory", MEMORIES, ids=name_of)
@pytest.mark.parametrize("chain", CHAINS, ids=name_of)
@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=name_of)
def test_combination_trains_a_step(kit, people, clusterer, chain, memory, cross: bool) -> None:
    train, features = people
    setup, epoch = kit.setup(train, 24), kit.Epoch(train, features, stages=2, cross=cross)
    labels = made(clusterer, setup).cluster(epoch)
    for refiner in chain:
        labels = made(refiner, setup).refine(epoch, labels)
    bank = made(memory, setup)
    bank.build(epoch, labels)
    losses = [made(loss, setup) for loss in LOSSES]
    for loss in losses:
        loss.begin(epoch, labels, bank)
    for draw in labels.draws:
        rows = torch.arange(0, 192, 2)
        weights = (features[rows] + 0.05).requires_grad_()
        batch, embeddings = kit.batch(labels, rows, draw=draw), kit.embeddings(weights)
        terms = {k: v for loss in losses for k, v in loss.terms(batch, embeddings, bank, epoch).items()}
        assert {f"contrast/{name}" for name in draw.partitions} <= set(terms)
        total = sum(terms.values())
        total.backward()
        assert bool(torch.isfinite(total))
        assert bool(torch.isfinite(weights.grad).all())
        bank.update(batch, embeddings.detach())
    for name in bank.names:
        found = bank.bank(name)
        assert_close(found.vectors.norm(dim=1), torch.ones(len(found.vectors)))
        assert found.num_clusters == labels[name].num_clusters


@pytest.mark.parametrize("grad", ["clean", "released"])
def test_both_memory_gradients_train_with_every_loss(kit, people, grad: str) -> None:
    train, features = people
    setup, epoch = kit.setup(train, 24), kit.Epoch(train, features)
    labels = made(CLUSTERERS[0], setup).cluster(epoch)
    labels = made(REFINERS[0], setup).refine(epoch, labels)
    for memory, form in itertools.product(MEMORIES[:2], ("opposite", "proxy", "centroid")):
        bank = made(memory, setup, memory_grad=grad)
        bank.build(epoch, labels)
        before = bank.bank("visible").vectors.clone()
        rows = torch.arange(0, 192, 2)
        weights = (features[rows] + 0.05).requires_grad_()
        batch, embeddings = kit.batch(labels, rows), kit.embeddings(weights)
        total = torch.zeros(())
        for loss in LOSSES:
            options = {"form": form} if loss.name == "modality-contrast" else {}
            part = made(loss, setup, **options)
            part.begin(epoch, labels, bank)
            total = total + sum(part.terms(batch, embeddings, bank, epoch).values())
        total.backward()
        bank.update(batch, embeddings.detach())
        assert not torch.equal(bank.bank("visible").vectors, before)
