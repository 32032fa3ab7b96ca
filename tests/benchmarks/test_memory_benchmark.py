"""Memory updates against the loops that define them, in one process: read the ratio, not the times.

The loops are written as released code has them, on torch tensors, image by image.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from harness.memory_updates import hard_update_, hybrid_update_, momentum_update_, multi_centre_update_

CLUSTERS, CENTRES, SIZE = 400, 10, 2048


def sequential_momentum(bank, queries, labels, *, momentum):
    for query, label in zip(queries, labels, strict=True):
        bank[label] = momentum * bank[label] + (1 - momentum) * query
        bank[label] /= bank[label].norm()


def sequential_multi_centre(bank, queries, labels, *, momentum):
    for query, label in zip(queries, labels, strict=True):
        nearest = int((bank[label] @ query).argmax())
        bank[label, nearest] = momentum * bank[label, nearest] + (1 - momentum) * query
        bank[label, nearest] /= bank[label, nearest].norm()


def groups_of(queries, labels):
    groups = {}
    for query, label in zip(queries, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(query)
    return groups


def farthest(group, row):
    return group[int(np.argmin([float(query @ row) for query in group]))]


def sequential_hard(bank, queries, labels, *, momentum):
    for label, group in groups_of(queries, labels).items():
        bank[label] = momentum * bank[label] + (1 - momentum) * farthest(group, bank[label])
        bank[label] /= bank[label].norm()


def sequential_hybrid(centroids, hard, queries, labels, *, momentum):
    for label, group in groups_of(queries, labels).items():
        hardest = farthest(group, centroids[label])
        centroids[label] = momentum * centroids[label] + (1 - momentum) * torch.stack(group).mean(dim=0)
        centroids[label] /= centroids[label].norm()
        hard[label] = momentum * hard[label] + (1 - momentum) * hardest
        hard[label] /= hard[label].norm()


RULES = {
    "momentum": (momentum_update_, sequential_momentum, 1),
    "multi-centre": (multi_centre_update_, sequential_multi_centre, 1),
    "hard": (hard_update_, sequential_hard, 1),
    "hybrid": (hybrid_update_, sequential_hybrid, 2),
    "instance": (momentum_update_, sequential_momentum, 1),
}


def batch_of(total, *, rule):
    """Groups of 16 images in two views; for an instance memory, single images in two views."""
    generator = torch.Generator().manual_seed(total)
    ids = torch.randperm(CLUSTERS, generator=generator)
    labels = ids[torch.arange(total // 2)] if rule == "instance" else ids[: total // 32].repeat_interleave(16)
    return normalize(torch.randn(total, SIZE, generator=generator), dim=1), labels.repeat(2)


def banks_of(rule):
    generator = torch.Generator().manual_seed(0)
    shape = (CLUSTERS, CENTRES, SIZE) if rule == "multi-centre" else (CLUSTERS, SIZE)
    bank = normalize(torch.randn(shape, generator=generator), dim=-1)
    return [bank.clone() for _ in range(RULES[rule][2])]


@pytest.mark.parametrize("form", ["loop", "harness"])
@pytest.mark.parametrize("total", [64, 128, 256, 512])
@pytest.mark.parametrize("rule", RULES)
def test_memory_update(benchmark, rule, total, form):
    benchmark.group = f"memory update, {rule}, {total} x 2,048"
    ours, loop, _ = RULES[rule]
    queries, labels = batch_of(total, rule=rule)
    banks, expected = banks_of(rule), banks_of(rule)
    ours(*banks, queries, labels, momentum=0.1)
    loop(*expected, queries, labels, momentum=0.1)
    for found, wanted in zip(banks, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    update = loop if form == "loop" else ours
    benchmark.pedantic(update, args=(*banks, queries, labels), kwargs={"momentum": 0.1}, rounds=10)
