"""Queries with what was found for them, under the protocol's own rules: galleries, exclusions, order of ties.

Shape suffixes: Q queries, G gallery images, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError
from harness.evaluation import Protocol
from harness.evaluation.galleries import draw_galleries
from harness.evaluation.metrics import Galleries
from harness.report.source import Vectors

TOP = 10
EACH = 3
"""Queries of each kind."""
_BLOCK = 1 << 22  # similarities at once

Kind = Literal["best", "worst", "random"]
KINDS: tuple[Kind, ...] = ("best", "worst", "random")


@dataclass(frozen=True)
class Found:
    """A gallery image: row of the test set, camera, cosine similarity, and whether it shows the query's person."""

    row: int
    camera: int
    similarity: float
    right: bool


@dataclass(frozen=True)
class Sheet:
    """A query and the first images that were found for it. ``rank``: of the first right image, as the CMC counts."""

    kind: Kind
    row: int
    identity: int
    camera: int
    average_precision: float
    rank: int
    found: tuple[Found, ...]


@dataclass(frozen=True)
class TrialSheets:
    """The sheets of one trial, from 1; ``gallery``: its images."""

    trial: int
    gallery: int
    sheets: tuple[Sheet, ...]


def retrieval_sheets(
    vectors: Vectors, rules: Protocol, *, trials: int, seed: int, each: int = EACH
) -> list[TrialSheets]:
    """Best, worst and random queries of every trial. No two of a kind and trial are of one person if that can be.

    Raises:
        ProtocolError: the protocol is not defined on the test set, or draws from permutations that are elsewhere.
    """
    generator = np.random.default_rng(seed)
    queries_Q = np.flatnonzero(np.isin(vectors.test_set.camera, rules.query_cameras))
    if not len(queries_Q):
        raise ProtocolError(f"The test set has no query of {rules.identifier}.")
    galleries = draw_galleries(vectors.test_set, rules, trials=trials)
    return [
        TrialSheets(number + 1, len(gallery), tuple(_of_trial(vectors, rules, queries_Q, gallery, generator, each)))
        for number, gallery in enumerate(galleries)
    ]


def _of_trial(
    vectors: Vectors,
    rules: Protocol,
    queries_Q: NDArray[np.int64],
    gallery_G: NDArray[np.int64],
    generator: np.random.Generator,
    each: int,
) -> Iterable[Sheet]:
    rank_Q, precision_Q = _scores(vectors, rules, queries_Q, gallery_G)
    valid = np.flatnonzero(rank_Q > 0)
    people_Q = vectors.test_set.identity[queries_Q]
    ascending = valid[np.lexsort((valid, precision_Q[valid]))]
    chosen: dict[Kind, list[int]] = {
        "best": _distinct(ascending[::-1], people_Q, each),
        "worst": _distinct(ascending, people_Q, each),
        "random": _distinct(generator.permutation(valid), people_Q, each),
    }
    for kind in KINDS:
        for place in chosen[kind]:
            yield _sheet(
                vectors, rules, queries_Q[place], gallery_G, kind, float(precision_Q[place]), int(rank_Q[place])
            )


def _distinct(places: NDArray[np.int64], people: NDArray[np.int64], most: int) -> list[int]:
    """The first places with people that differ; then others, if there are too few people."""
    first: dict[int, int] = {}
    for place in places.tolist():
        first.setdefault(int(people[place]), place)
        if len(first) == most:
            break
    chosen = list(first.values())
    return (chosen + [place for place in places[: 2 * most].tolist() if place not in chosen])[:most]


def _scores(
    vectors: Vectors, rules: Protocol, queries_Q: NDArray[np.int64], gallery_G: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """CMC rank (0: no right image in the gallery) and average precision of every query, [Q] each."""
    identity = vectors.test_set.identity
    scorer = Galleries(identity[gallery_G], [np.arange(len(gallery_G))], cmc=rules.cmc)
    block = max(1, _BLOCK // len(gallery_G))
    ranks, precisions = [], []
    for start in range(0, len(queries_Q), block):
        rows = queries_Q[start : start + block]
        figures = scorer.query_figures(
            _similarity(vectors, rows, gallery_G),
            identity[rows],
            excluded=_excluded(vectors.test_set.camera, rules, rows, gallery_G),
        )
        ranks.append(figures.rank[:, 0])
        precisions.append(figures.average_precision[:, 0])
    return np.concatenate(ranks), np.concatenate(precisions)


def _similarity(vectors: Vectors, rows_Q: NDArray[np.int64], gallery_G: NDArray[np.int64]) -> NDArray[np.float32]:
    query_QD, gallery_GD = (vectors.features[rows].astype(np.float64) for rows in (rows_Q, gallery_G))
    return (query_QD @ gallery_GD.T).astype(np.float32)


def _excluded(
    camera: NDArray[np.int64], rules: Protocol, rows_Q: NDArray[np.int64], gallery_G: NDArray[np.int64]
) -> NDArray[np.bool_]:
    mask = np.zeros((len(rows_Q), len(gallery_G)), dtype=bool)
    for query, removed in rules.excluded:
        mask |= (camera[rows_Q] == query)[:, None] & (camera[gallery_G] == removed)
    return mask


def _sheet(
    vectors: Vectors, rules: Protocol, row: int, gallery_G: NDArray[np.int64], kind: Kind, precision: float, rank: int
) -> Sheet:
    one = np.array([row])
    similarity = _similarity(vectors, one, gallery_G)[0]
    kept = np.flatnonzero(~_excluded(vectors.test_set.camera, rules, one, gallery_G)[0])
    order = kept[np.argsort(-similarity[kept], kind="stable")][:TOP]
    labels = vectors.test_set
    found = tuple(
        Found(
            row=int(gallery_G[place]),
            camera=int(labels.camera[gallery_G[place]]),
            similarity=float(similarity[place]),
            right=bool(labels.identity[gallery_G[place]] == labels.identity[row]),
        )
        for place in order
    )
    return Sheet(kind, int(row), int(labels.identity[row]), int(labels.camera[row]), precision, rank, found)


def by_kind(sheets: Sequence[Sheet]) -> list[tuple[Kind, list[Sheet]]]:
    """The sheets of each kind."""
    return [(kind, [sheet for sheet in sheets if sheet.kind == kind]) for kind in KINDS]
