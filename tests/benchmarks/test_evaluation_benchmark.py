"""How fast ten galleries are scored, beside a loop over queries as the copied evaluations do it."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation import TestSet, evaluate, protocol
from harness.evaluation.galleries import draw_galleries

PROTOCOL = protocol("rendered/all/single/S/v1")


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    rows = [(i, c, k) for i in range(1, 41) for c in range(1, 7) for k in range(12)]
    identity, camera, order = map(np.array, zip(*rows, strict=True))
    features = rng.standard_normal((len(rows), 128)) + 2 * rng.standard_normal((41, 128))[identity]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), TestSet(identity=identity, camera=camera, order=order)


def _per_query_loop(features, test_set):
    pool, galleries = draw_galleries(test_set, PROTOCOL, trials=10)
    queries = np.flatnonzero(np.isin(test_set.camera, PROTOCOL.query_cameras))
    means = []
    for gallery in galleries:
        rows = pool[gallery]
        similarity = features[queries].astype(np.float64) @ features[rows].astype(np.float64).T
        precisions = []
        for query, row in zip(queries, similarity.astype(np.float32), strict=True):
            order = np.argsort(-row, kind="stable")
            if test_set.camera[query] == 3:
                order = order[test_set.camera[rows[order]] != 2]
            places = np.flatnonzero(test_set.identity[rows[order]] == test_set.identity[query]) + 1
            if len(places):
                precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
        means.append(np.mean(precisions))
    return np.mean(means)


@pytest.mark.benchmark(group="ten-trial evaluation")
def test_vectorised_over_queries(benchmark, case):
    result = benchmark(evaluate, *case, PROTOCOL)
    assert result.mean("mAP") == pytest.approx(_per_query_loop(*case), abs=1e-12)


@pytest.mark.benchmark(group="ten-trial evaluation")
def test_loop_over_queries_for_reference(benchmark, case):
    benchmark(_per_query_loop, *case)
