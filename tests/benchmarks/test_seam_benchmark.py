"""What the checks of hand-over values cost an epoch of SYSU-MM01's size, beside the work of that epoch.

34,167 images in 400 clusters, 200 iterations of 96 images with four terms and two banks, features and banks of 2,048.
The epoch beside them is made as cheap as it gets: the small encoder instead of a ResNet-50, only its steps and one
extraction without mirror images, both from a few batches, and no clustering. Read the share, not the times.
"""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn.functional import normalize

from harness.contracts import Bank, Memory, PseudoLabels, TrainIndex
from harness.engine.objective import _require_finite
from harness.engine.seam import check_embeddings, check_features, check_memory, check_terms, checked_labels
from harness.models.small import SmallTwoStream

IMAGES, VISIBLE, SIZE, CLUSTERS = 34_167, 22_258, 2_048, 200
ITERATIONS, BATCH, TERMS = 200, 96, 4
DIMS = {"main": SIZE}


class Banks(Memory):
    """Two banks of centroids."""

    names = ("visible", "infrared")
    build = update = None

    def __init__(self, vectors_KD):
        self.vectors_KD = vectors_KD

    def bank(self, name, *, embedding="main"):
        return Bank.of_centroids(self.vectors_KD)


@pytest.fixture(scope="module")
def case():
    """Labels, memory, features, and a batch's embeddings and terms: as they must be, so that every check is made."""
    generator = torch.Generator().manual_seed(0)
    modality = (torch.arange(IMAGES) >= VISIBLE).long()
    train = TrainIndex(modality, torch.randint(1, 7, (IMAGES,), generator=generator))
    ids = torch.arange(IMAGES) % CLUSTERS
    labels = PseudoLabels(
        train, {"visible": torch.where(train.visible, ids, -1), "infrared": torch.where(train.infrared, ids, -1)}
    )
    memory = Banks(normalize(torch.randn(CLUSTERS, SIZE, generator=generator), dim=1))
    features = {"main": torch.rand(IMAGES, SIZE, generator=generator)}
    terms = {f"term {number}": torch.tensor(1.5, requires_grad=True) for number in range(TERMS)}
    return labels, memory, features, {"main": torch.zeros(BATCH, SIZE)}, terms


def all_checks(labels, memory, features, embeddings, terms):
    """Every check of one epoch; returns how many values were looked at."""
    check_features(features, encoder="online", view="plain")
    seen = len(features)
    for _ in ("clusterer", "refiner"):
        made = PseudoLabels(labels.train, {name: labels[name].labels for name in labels.given})
        seen += len(checked_labels(made, labels.train).given)
    for _ in ("build", "update"):
        check_memory(memory, labels, DIMS)
        seen += len(memory.names)
    for _ in range(ITERATIONS):
        check_embeddings(embeddings, DIMS, rows=BATCH)
        for name, term in check_terms(terms).items():
            _require_finite(term, name, None)
        seen += len(embeddings) + len(terms)
    return seen


def seconds_of_an_epoch():
    """Processor seconds of the cheapest epoch of this size, from three batches of each kind."""
    encoder = SmallTwoStream()
    images = torch.rand(BATCH, 3, *encoder.input_size)
    modality = (torch.arange(BATCH) >= BATCH // 2).long()
    optimiser = torch.optim.Adam(encoder.parameters())

    def step():
        optimiser.zero_grad(set_to_none=True)
        encoder(images, modality)["main"].square().mean().backward()
        optimiser.step()

    @torch.no_grad()
    def extract():
        encoder.eval()(images, modality)

    return ITERATIONS * seconds_of(step) + IMAGES / BATCH * seconds_of(extract)


def seconds_of(work, *, times=3):
    """Processor seconds of one call, after one to warm up."""
    work()
    before = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - before) / times


def test_checks_at_the_seam_are_below_one_per_cent_of_an_epoch(benchmark, case):
    benchmark.group = f"checks at the seam, one epoch, {IMAGES:,} x {SIZE:,}, {ITERATIONS} iterations"
    seen = benchmark.pedantic(all_checks, args=case, rounds=3, warmup_rounds=1)
    assert seen == 1 + 2 * 2 + 2 * 2 + ITERATIONS * (1 + TERMS)
    if benchmark.enabled:
        share = seconds_of(lambda: all_checks(*case)) / seconds_of_an_epoch()
        benchmark.extra_info["percent_of_an_epoch"] = round(100 * share, 3)
        print(f"\nchecks at the seam: {100 * share:.3f} % of an epoch")
        assert share < 0.01
