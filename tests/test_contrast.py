"""Contrast against cross-entropy, against hand-computed values, and its edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from harness.contracts import Bank
from harness.contrast import contrast


@pytest.fixture
def queries() -> torch.Tensor:
    return normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), dim=1).requires_grad_()


@pytest.fixture
def prototypes() -> torch.Tensor:
    return normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(2)), dim=1)


LABELS = torch.tensor([0, 3, -1, 1, -1, 3])


def test_one_prototype_per_cluster_is_cross_entropy_over_the_labelled(queries, prototypes) -> None:
    value = contrast(Bank.of_centroids(prototypes), queries, LABELS, temperature=0.1)
    kept = LABELS >= 0
    assert_close(value, cross_entropy(queries[kept] @ prototypes.T / 0.1, LABELS[kept]))


def test_permuted_rows_give_the_same_value_and_gradient(queries, prototypes) -> None:
    order = torch.tensor([2, 0, 3, 1])
    plain = contrast(Bank.of_centroids(prototypes), queries, LABELS, temperature=0.1)
    permuted = contrast(Bank(prototypes[order], order), queries, LABELS, temperature=0.1)
    assert_close(permuted, plain)
    gradients = [torch.autograd.grad(value, queries)[0] for value in (plain, permuted)]
    assert_close(gradients[1], gradients[0])


def test_own_prototypes_add_up_and_minus_one_is_a_negative_of_all() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    bank = Bank(vectors, torch.tensor([0, 0, 1, -1]))
    e = math.exp
    first = -math.log((e(1 / 0.5) + e(0.6 / 0.5)) / (e(1 / 0.5) + e(0.6 / 0.5) + e(0) + e(-1 / 0.5)))
    second = -math.log(e(1 / 0.5) / (e(0) + e(0.8 / 0.5) + e(1 / 0.5) + e(0)))
    value = contrast(bank, queries, torch.tensor([0, 1]), temperature=0.5)
    assert float(value) == pytest.approx((first + second) / 2, rel=1e-6)


def test_gradient_reaches_the_queries_and_skips_the_unlabelled(queries, prototypes) -> None:
    value = contrast(Bank(prototypes, torch.tensor([0, 1, 3, 3])), queries, LABELS, temperature=0.1)
    value.backward()
    moved = queries.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == (LABELS >= 0).tolist()


def test_no_labelled_query_has_nothing_to_say(queries, prototypes) -> None:
    assert contrast(Bank.of_centroids(prototypes), queries, torch.full((6,), -1), temperature=0.1) is None


def test_half_precision_products_are_summed_in_single_precision(queries, prototypes) -> None:
    bank = Bank.of_centroids(prototypes.bfloat16())
    value = contrast(bank, queries.detach().bfloat16(), LABELS, temperature=0.05)
    assert value.dtype == torch.float32
