"""Progress reaches whoever listens, and nobody else."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.progress import listening, progress_of


def test_without_a_listener_nothing_is_reported() -> None:
    assert progress_of("anything") is None


def test_the_clustering_tells_the_listener_until_all_is_done() -> None:
    told: list[tuple[str, int, int]] = []
    features = normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    with listening(lambda *report: told.append(report)):
        k_reciprocal_jaccard(features, k1=5, k2=2)
    assert {what for what, _, _ in told} == {"clustering"}
    assert told[-1] == ("clustering", 160, 160)
    assert progress_of("clustering") is None


def test_an_inner_listener_stands_in_for_the_outer_one() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with listening(lambda what, done, total: outer.append(what)):
        with listening(lambda what, done, total: inner.append(what)):
            progress_of("a")(1, 2)
        progress_of("b")(1, 2)
    assert (outer, inner) == (["b"], ["a"])
