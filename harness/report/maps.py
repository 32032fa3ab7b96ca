"""Where test images lie: a projection onto two dimensions, and similarities of pairs across modalities.

Shape suffixes: M test images, S sampled ones, D embedding size, V visible and I infrared images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.evaluation import Protocol
from harness.report.source import Vectors

Projection = Literal["pca", "tsne"]

MOST_POINTS = 1500
NAMED = 6
"""People with a colour of their own; more could not be told apart."""
_MOST_PER_MODALITY = 1500  # images whose pairs are counted
BINS = 48


@dataclass(frozen=True)
class EmbeddingMap:
    """Points float64 [S, 2] with identity, modality (infrared: True) of each. ``axes``: what they are, with units.

    ``people``: identities that have a colour.
    """

    points: NDArray[np.float64]
    identity: NDArray[np.int64]
    infrared: NDArray[np.bool_]
    axes: tuple[str, str]
    people: tuple[int, ...]


@dataclass(frozen=True)
class PairSimilarities:
    """Cosine similarities of visible-infrared pairs: shares float64 [BINS] of pairs of one person and of two people.

    ``edges`` float64 [BINS + 1]. ``overlap``: the probability that a pair of two people is more similar than a pair of
    one person (0.5: the two cannot be told apart; equal ones count half).
    """

    edges: NDArray[np.float64]
    same: NDArray[np.float64]
    other: NDArray[np.float64]
    mean_same: float
    mean_other: float
    overlap: float
    pairs: int


def infrared_of(vectors: Vectors, rules: Protocol) -> NDArray[np.bool_]:
    """Which test images are infrared, bool [M]."""
    return np.isin(vectors.test_set.camera, rules.infrared_cameras)


def sampled_rows(vectors: Vectors, people: tuple[int, ...], *, seed: int) -> NDArray[np.int64]:
    """At most :data:`MOST_POINTS` rows: those of ``people``, then others at random. Ascending."""
    identity = vectors.test_set.identity
    order = np.random.default_rng(seed).permutation(len(identity))
    order = order[np.argsort(~np.isin(identity[order], people), kind="stable")]
    return np.sort(order[:MOST_POINTS])


def named_people(vectors: Vectors, rules: Protocol) -> tuple[int, ...]:
    """People from the best found to the worst, evenly spaced: by the similarity of their images across modalities,
    less that to the nearest image of somebody else."""
    infrared, identity = infrared_of(vectors, rules), vectors.test_set.identity
    people = np.intersect1d(identity[infrared], identity[~infrared])
    if not len(people):
        people = np.unique(identity)
    centres = {
        kind: np.stack([_centre(vectors.features[(identity == person) & mask]) for person in people])
        for kind, mask in (("visible", ~infrared), ("infrared", infrared))
    }
    similarity = centres["infrared"] @ centres["visible"].T
    own = np.diag(similarity).copy()
    np.fill_diagonal(similarity, -np.inf)
    margin = own - similarity.max(axis=1) if len(people) > 1 else own
    order = people[np.argsort(-margin, kind="stable")]
    places = np.unique(np.linspace(0, len(order) - 1, min(NAMED, len(order))).round().astype(np.int64))
    return tuple(int(person) for person in order[places])


def _centre(features: NDArray[np.float32]) -> NDArray[np.float64]:
    if not len(features):
        return np.zeros(features.shape[1])
    mean = features.astype(np.float64).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))


def embedding_map(
    vectors: Vectors, rules: Protocol, rows: NDArray[np.int64], *, people: tuple[int, ...], how: Projection, seed: int
) -> EmbeddingMap:
    """Project the test images of ``rows``: by principal components, or by t-SNE, which keeps neighbours together."""
    features_SD = vectors.features[rows].astype(np.float64)
    points, axes = _tsne(features_SD, seed) if how == "tsne" and len(rows) > 3 else _pca(features_SD)
    return EmbeddingMap(points, vectors.test_set.identity[rows], infrared_of(vectors, rules)[rows], axes, people)


def _pca(features_SD: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, str]]:
    centred = features_SD - features_SD.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    first = directions[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])  # of no two signs
    shares = np.clip(variances[::-1][:2], 0, None) / max(float(variances.clip(0).sum()), 1e-30)
    points = centred @ first
    if points.shape[1] < 2:
        points, shares = np.column_stack([points, np.zeros(len(points))]), np.append(shares, 0.0)
    names = ("first", "second")
    axes = [f"{name} component ({100 * share:.0f} % of variance)" for name, share in zip(names, shares, strict=True)]
    return points, (axes[0], axes[1])


def _tsne(features_SD: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], tuple[str, str]]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features_SD) - 1) / 3)
    fit = TSNE(perplexity=perplexity, init="pca", random_state=seed, metric="cosine")
    return fit.fit_transform(features_SD), ("t-SNE, first axis (no unit)", "t-SNE, second axis (no unit)")


def pair_similarities(vectors: Vectors, rules: Protocol, *, seed: int) -> PairSimilarities | None:
    """Similarities of all pairs between at most 1500 visible and 1500 infrared test images; None without both kinds
    of pairs."""
    generator, infrared = np.random.default_rng(seed), infrared_of(vectors, rules)
    visible_V, infrared_I = (
        np.sort(generator.permutation(np.flatnonzero(mask))[:_MOST_PER_MODALITY]) for mask in (~infrared, infrared)
    )
    similarity = vectors.features[visible_V] @ vectors.features[infrared_I].T
    identity = vectors.test_set.identity
    same = identity[visible_V][:, None] == identity[infrared_I][None, :]
    if not same.any() or same.all():
        return None
    edges = np.linspace(float(similarity.min()), float(similarity.max()) + 1e-6, BINS + 1)
    counts = {kind: np.histogram(similarity[same == kind], edges)[0].astype(np.float64) for kind in (True, False)}
    shares = {kind: count / count.sum() for kind, count in counts.items()}
    return PairSimilarities(
        edges=edges,
        same=shares[True],
        other=shares[False],
        mean_same=float(similarity[same].mean()),
        mean_other=float(similarity[~same].mean()),
        overlap=_overlap(similarity[same], similarity[~same]),
        pairs=int(same.size),
    )


def _overlap(same: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([same, other]))
    wins = ranks[: len(same)].sum() - len(same) * (len(same) + 1) / 2
    return float(1 - wins / (len(same) * len(other)))


def work_shares(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Kinds of work by the seconds they took, the longest first."""
    return sorted(seconds.items(), key=lambda entry: (-entry[1], entry[0]))
