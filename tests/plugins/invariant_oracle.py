"""The distances of MIE and EMCC as plain loops in float64, and the scenes of the worked examples."""

from __future__ import annotations

import numpy as np
import torch

from tests.clustering import oracle

BRIDGE_DEGREES = (0.6, 0.7, 2.5, 3.9, 5.1, 5.4, 47.4, 48.4, 48.5, 49.8, 51.0, 52.3, 150, 151.7, 153.1, 154.6)
"""Check 3 of dmic.md and ecul.md: six visible, six infrared, four visible images."""

BRIDGE_MODALITY = [0] * 6 + [1] * 6 + [0] * 4
BRIDGE_CAMERA = [1] * 6 + [3] * 6 + [1] * 4


def bridge() -> torch.Tensor:
    """Unit rows, float64 [16, 2]."""
    radians = torch.deg2rad(torch.tensor(BRIDGE_DEGREES, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def chosen(own, groups, k2, k3, rule):
    """The neighbours that take part, walking through the list."""
    taken = []
    for place, j in enumerate(own[:k3]):
        if rule == "cap":
            if sum(groups[i] == groups[j] for i in taken) < k2:
                taken.append(j)
        elif place < k2 or groups[j] not in [groups[i] for i in own[:k2]]:
            taken.append(j)
    return taken


def nested_mean(rows):
    """``rows``: (modality, camera, encoding). Mean of modality means of camera means; empty encodings are no member."""
    rows = [row for row in rows if row[2].any()]
    if not rows:
        return None
    modality_means = []
    for modality in sorted({m for m, _, _ in rows}):
        cameras = sorted({c for m, c, _ in rows if m == modality})
        means = [np.mean([e for m, c, e in rows if (m, c) == (modality, camera)], axis=0) for camera in cameras]
        modality_means.append(np.mean(means, axis=0))
    return np.mean(modality_means, axis=0)


def expanded(codes, lists, groups, *, k2, k3, form="nested", rule="cap"):
    """Dense [N, N]: every row's mean over the neighbours that take part. ``groups``: (modality, camera) of each row."""
    result = np.zeros_like(codes)
    for i, own in enumerate(lists):
        rows = [
            (groups[j][0] if form == "nested" else 0, groups[j], codes[j]) for j in chosen(own, groups, k2, k3, rule)
        ]
        if form == "plain":
            rows = [(0, 0, code) for _, _, code in rows]
        mean = nested_mean(rows)
        if mean is not None:
            result[i] = mean
    return result


def distance(features, groups, *, k1, k2, k3, form="nested", rule="cap"):
    """Dense [N, N] Jaccard distance; MIE of size k is ``k2 = k3 = k``."""
    total = len(features)
    lists = oracle.ranking(features, min(max(k1, k3), total))
    codes = oracle.encoding(features, [own[:k1] for own in lists], min(k1, total))
    if k3 > 1:
        codes = expanded(codes, lists, groups, k2=k2, k3=k3, form=form, rule=rule)
    shared = np.minimum(codes[:, None], codes[None]).sum(axis=2)
    result = np.maximum(1 - shared / (2 - shared), 0)
    np.fill_diagonal(result, 0)
    return result


def dense(sparse):
    """The distance 1 filled in where a sparse result stores nothing."""
    result = np.ones(sparse.shape)
    coordinates = sparse.tocoo()
    result[coordinates.row, coordinates.col] = coordinates.data
    return result


def crowd(seed, total, size=6, cameras=(1, 2, 4, 3, 6)):
    """Random unit rows float64 [total, size] around a few centres, and (modality, camera) of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, size))
    camera = rng.choice(cameras, size=total)
    shift = {c: 0.3 * rng.normal(size=size) for c in cameras}
    rows = centres[rng.integers(4, size=total)] + 0.5 * rng.normal(size=(total, size)) + [shift[c] for c in camera]
    groups = [(int(c in (3, 6)), int(c)) for c in camera]
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)), groups
