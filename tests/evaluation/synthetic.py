"""The synthetic feature sets of evaluation.md, section 8, and where the official SYSU-MM01 files are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from harness.evaluation import TestSet

SYSU_COUNTS = np.array(
    [
        [3, 2, 0, 4, 0, 2, 3, 0],
        [2, 3, 2, 0, 0, 3, 2, 3],
        [2, 2, 2, 1, 2, 2, 1, 2],
        [0, 2, 2, 3, 2, 0, 2, 0],
        [2, 0, 2, 2, 3, 0, 0, 0],
        [1, 2, 1, 2, 2, 1, 2, 2],
    ]
)
SYSU_TEST_IDENTITIES = (1, 2, 4, 5, 6, 7, 8)


def synthetic_features(identity, camera, number, *, dims, identity_weight=0.6):
    """Unit float64 rows: w cos(.9 i d) + .5 sin(.8 c d + .4) + .5 sin(1.1 k d i + c), d = 1..dims, k from 1."""
    i, c, k = (np.asarray(values, dtype=np.float64)[:, None] for values in (identity, camera, number))
    d = np.arange(1, dims + 1, dtype=np.float64)
    features = (
        identity_weight * np.cos(0.9 * i * d) + 0.5 * np.sin(0.8 * c * d + 0.4) + 0.5 * np.sin(1.1 * k * d * i + c)
    )
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def images_of(counts):
    """(identity, camera, number from 1) of every image, from {(camera, identity): images}."""
    rows = [(i, c, k) for (c, i), n in counts.items() for k in range(1, n + 1)]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def labelled_features(counts, *, dims, identity_weight=0.6):
    """The labels of these images and their synthetic features."""
    identity, camera, number = images_of(counts)
    test_set = TestSet(identity=identity, camera=camera, order=number - 1)
    return test_set, synthetic_features(identity, camera, number, dims=dims, identity_weight=identity_weight)


def sysu_toy_counts():
    """{(camera, identity): images} of the toy of section 8.1, test identities only."""
    return {
        (c, i): int(SYSU_COUNTS[c - 1, i - 1])
        for c in range(1, 7)
        for i in SYSU_TEST_IDENTITIES
        if SYSU_COUNTS[c - 1, i - 1]
    }


def sysu_toy_permutations():
    """The toy's permutations: row t, entry j = ((j + t + c + i) mod n) + 1."""
    return {
        (c, i): np.array([[(j + t + c + i) % n + 1 for j in range(n)] for t in range(1, 11)])
        for (c, i), n in sysu_toy_counts().items()
    }


def official_splits():
    """The folder with rand_perm_cam.mat and test_id.mat, or None.

    HARNESS_SYSU_SPLITS names it; otherwise it is looked for in ../shared/data/sysu-mm01 beside the repository.
    """
    beside = Path(__file__).parents[3] / "shared" / "data" / "sysu-mm01"
    folder = Path(os.environ.get("HARNESS_SYSU_SPLITS") or beside)
    return folder if (folder / "rand_perm_cam.mat").is_file() else None
