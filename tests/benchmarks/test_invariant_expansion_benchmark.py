"""MIE's and EMCC's expansions beside the ordinary one, everything else of the distance equal: read the ratios.

``HARNESS_BENCHMARK_ROWS`` (default 2060) sets the number of images, ``HARNESS_BENCHMARK_SIZE`` (512) the feature size.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from harness.clustering.expansion import plain
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness_dmic.expansion import CameraGroups, InvariantExpansion
from harness_ecul.emcc import ExtendedExpansion
from tests.benchmarks.clustering_data import mixture

ROWS, SIZE = (
    int(os.environ.get(f"HARNESS_BENCHMARK_{name}", default)) for name, default in (("ROWS", 2060), ("SIZE", 512))
)
K1, K2 = 40, 32
pytestmark = pytest.mark.benchmark(group=f"expansions, {ROWS} x {SIZE}")


@pytest.fixture(scope="module")
def case():
    features, _ = mixture(ROWS, SIZE, people=max(2, ROWS // 86))
    # Dealt at random: the cost of an expansion does not depend on who was seen by which camera.
    camera = torch.randint(0, 6, (ROWS,), generator=torch.Generator().manual_seed(1))
    groups = CameraGroups.of((camera >= 4).long(), camera)
    return features, nearest_neighbours(features, K1), groups


@pytest.mark.parametrize("name", ["plain", "mie", "emcc"])
def test_distance_with_the_expansion(benchmark, case, name):
    features, ranking, groups = case
    expansion = {
        "plain": plain,
        "mie": InvariantExpansion(groups),
        "emcc": ExtendedExpansion(groups, cap=16),
    }[name]
    options = {"k1": K1, "k2": K1 if name == "emcc" else K2, "ranking_NK": ranking, "max_distance": 0.6}
    found = benchmark.pedantic(
        k_reciprocal_jaccard,
        args=(features,),
        kwargs={**options, "expansion": expansion},
        rounds=3,
        warmup_rounds=1,
    )
    assert found.shape == (ROWS, ROWS)
    assert found.nnz < 0.2 * ROWS**2  # compressed rows, not a dense matrix in disguise
    assert np.isfinite(found.data).all()
