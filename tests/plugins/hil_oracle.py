"""HIL's arithmetic as naive float64 loops, image by image (hil.md 3.3, 3.4, 3.6, 3.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(row: Array) -> Array:
    return row / np.linalg.norm(row)


def reverse_selection(features: Array, labels: list[int], prototypes: Array, rho: float) -> list[int]:
    rows, protos = [unit(row) for row in features], [unit(row) for row in prototypes]
    reverse = [max(float(p @ row) for row in rows) for p in protos]
    found = []
    for row, label in zip(rows, labels, strict=True):
        similar = [float(row @ p) for p in protos]
        best = int(np.argmax(similar))
        found.append(best if label != -1 and similar[best] >= rho * reverse[best] else -1)
    return found


def distances(query: Array, centres: list[Array]) -> list[Array]:
    """To the centres of each cluster [J, D]."""
    return [np.linalg.norm(rows - unit(query), axis=1) for rows in centres]


def multi_centre(query: Array, centres: list[Array], positive: int | None = None) -> tuple[float, int]:
    """The loss of one query, and its nearest cluster."""
    found = distances(query, centres)
    nearest = int(np.argmin([row.min() for row in found]))
    own = nearest if positive is None else positive
    pos = float(np.mean(1 / found[own]))
    neg = float(np.mean([1 / row.min() for k, row in enumerate(found) if k != own]))
    return -float(np.log(pos / (pos + neg + 1e-8))), nearest


def neighbours(own: list[Array], others: list[Array], threshold: float) -> NDArray[np.bool_]:
    found = np.ones((len(own[0]), len(others[0])), dtype=bool)
    for rows, images in zip(own, others, strict=True):
        for i, row in enumerate(rows):
            similar = [float(row @ image) for image in images]
            for j, value in enumerate(similar):
                found[i, j] &= value > threshold * max(similar)
    return found


def neighbour_contrast(queries: Array, images: Array, near: NDArray[np.bool_], temperature: float) -> float:
    total = 0.0
    for query, chosen in zip(queries, near, strict=True):
        weights = np.exp(images @ unit(query) / temperature)
        share = weights / weights.sum()
        total -= sum(float(np.log(max(share[j], 1e-8))) for j in np.flatnonzero(chosen)) / (chosen.sum() + 1)
    return total / len(queries)


def momentum(row: Array, queries: list[Array], momentum: float) -> Array:
    for query in queries:
        row = unit(momentum * row + (1 - momentum) * query)
    return row


class Softmax:
    """Cross-entropy of one unit query with a bank of centroids: forward now, gradient with the bank of later."""

    def __init__(self, raw: Array, bank: Array, label: int, *, temperature: float) -> None:
        self.raw, self.query, self.label, self.temperature = raw, unit(raw), label, temperature
        logits = bank @ self.query / temperature
        self.share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        self.loss = -float(np.log(self.share[label]))

    def gradient(self, bank: Array) -> Array:
        """With respect to the raw embedding."""
        slope = self.share.copy()
        slope[self.label] -= 1
        to_unit = slope @ bank / self.temperature
        return (to_unit - self.query * (self.query @ to_unit)) / np.linalg.norm(self.raw)
