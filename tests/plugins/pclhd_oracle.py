"""PCLHD's released memory as naive float64 loops: forward, backward and update, term by term (pclhd.md 3.5, 3.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(row: Array) -> Array:
    return row / np.linalg.norm(row)


def update(bank: Array, queries: Array, labels: list[int], *, momentum: float, hard_k: int = 1) -> None:
    """In place, ``bank`` [2K, D]: centroid rows, then hard rows."""
    clusters = len(bank) // 2
    for k in sorted(set(labels) - {-1}):
        group = [x for x, y in zip(queries, labels, strict=True) if y == k]
        likeness = [float(x @ bank[k]) for x in group]
        farthest = [group[i] for i in np.argsort(likeness, kind="stable")[:hard_k]]
        centroid = unit(momentum * bank[k] + (1 - momentum) * np.mean(group, axis=0))
        bank[clusters + k] = unit(momentum * bank[clusters + k] + (1 - momentum) * np.mean(farthest, axis=0))
        bank[k] = centroid


class Term:
    """One contrast of raw embeddings with a bank; the softmax weights are those of the forward pass."""

    def __init__(self, bank: Array, raw: Array, labels: list[int], *, weight: float = 1.0, temperature: float) -> None:
        self.bank, self.raw, self.labels, self.weight = bank, raw, labels, weight
        self.queries = np.stack([unit(row) for row in raw])
        clusters = len(bank) // 2
        losses, self.slopes = [], []
        for start in (0, clusters):
            logits = self.queries @ bank[start : start + clusters].T / temperature
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            own = np.eye(clusters)[labels]
            losses.append(float(-np.log((shares * own).sum(axis=1)).mean()))
            self.slopes.append((shares - own) / temperature / len(labels))
        self.centroid_loss, self.hard_loss = losses
        self.value = 0.5 * (self.hard_loss + max(0.0, self.centroid_loss - 0.2))

    def gradient(self) -> Array:
        """With respect to the raw embeddings, against the bank as it is now."""
        slopes = [0.5 * (self.centroid_loss > 0.2) * self.slopes[0], 0.5 * self.slopes[1]]
        to_unit = self.weight * np.concatenate(slopes, axis=1) @ self.bank
        rows = []
        for raw, query, slope in zip(self.raw, self.queries, to_unit, strict=True):
            rows.append((slope - query * (query @ slope)) / np.linalg.norm(raw))
        return np.stack(rows)


def step(terms: list[Term], *, momentum: float, released: bool) -> list[Array]:
    """Gradients of the terms, given in the order of their creation; banks are updated in the reverse order."""
    gradients = []
    for term in reversed(terms):
        gradients.append(term.gradient())
        if released:
            update(term.bank, term.queries, term.labels, momentum=momentum)
    if not released:
        for term in reversed(terms):
            update(term.bank, term.queries, term.labels, momentum=momentum)
    return gradients[::-1]
