"""The k-reciprocal Jaccard distance as plain loops in float64: slow, dense, written from the definition."""

from __future__ import annotations

import math

import numpy as np


def ranking(features, k):
    """The k nearest rows of every row, by (squared distance, index)."""
    rows = [[float(x) for x in row] for row in features]
    lists = []
    for own in rows:
        distances = [math.fsum((a - b) ** 2 for a, b in zip(own, other, strict=True)) for other in rows]
        lists.append(sorted(range(len(rows)), key=lambda j: (distances[j], j))[:k])
    return lists


def reciprocal(lists, width):
    return [{j for j in own[:width] if i in lists[j][:width]} for i, own in enumerate(lists)]


def encoding(features, lists, k1):
    """Dense [N, N] encoding before query expansion."""
    features = np.asarray(features, dtype=np.float64)
    full = reciprocal(lists, k1 + 1)
    half = reciprocal(lists, round(k1 / 2) + 1)
    result = np.zeros((len(lists), len(lists)))
    for i, own in enumerate(full):
        members = set(own)
        for j in own:
            if 3 * len(half[j] & own) > 2 * len(half[j]):
                members |= half[j]
        if not members:
            continue
        logits = {j: -(2 - 2 * float(features[i] @ features[j])) for j in members}
        highest = max(logits.values())
        total = sum(math.exp(value - highest) for value in logits.values())
        for j, value in logits.items():
            result[i, j] = math.exp(value - highest) / total
    return result


def plain_expansion(encoding, lists, k2):
    return np.stack([np.mean([encoding[j] for j in own[:k2]], axis=0) for own in lists])


def balanced_expansion(encoding, lists, k2, modality):
    rows = []
    for own in lists:
        groups = [[encoding[j] for j in own[:k2] if modality[j] == code] for code in sorted(set(modality))]
        rows.append(np.mean([np.mean(group, axis=0) for group in groups if group], axis=0))
    return np.stack(rows)


def jaccard(features, k1, k2, modality=None):
    """Dense [N, N] distances; the diagonal is 0 by definition."""
    total = len(features)
    k1 = min(k1, total)
    lists = ranking(features, k1)
    codes = encoding(features, lists, k1)
    if k2 > 1:
        codes = (
            plain_expansion(codes, lists, k2) if modality is None else balanced_expansion(codes, lists, k2, modality)
        )
    result = np.zeros((total, total))
    for i in range(total):
        for j in range(total):
            if i != j:
                shared = np.minimum(codes[i], codes[j]).sum()
                result[i, j] = max(0.0, 1 - shared / (2 - shared))
    return result
