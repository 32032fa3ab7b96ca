"""CMC, average precision and inverse negative penalty of ranked galleries, vectorised over queries.

The rules are those of the official SYSU-MM01 evaluation (wuancong/SYSU-MM01, ``evaluation/``) and, for INP, of AGW
(Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021); evaluation.md, sections
3 to 5. For one query, after the exclusion, let ``g_1, g_2, ...`` be the gallery identities by ascending distance, ``R``
the number of correct images and ``p_n`` the rank of the n-th correct one:

- CMC rank, one entry per identity: position of the query's identity among the *first* occurrences of each identity;
- CMC rank, instance level: ``p_1``;
- AP = (1/R) sum_n n / p_n over all images, without interpolation;
- INP = R / p_R.

A query with R = 0 is invalid: it enters no mean and no denominator.

Ties are broken by gallery position, as by the official stable sort. All of it runs on *ranking keys*: one int32 per
(query, gallery image) which orders the images and carries their relevance in the lowest bit. Keys of a large pool are
made once; the keys of any gallery inside that pool are just its columns, because a total order restricted to a subset
is still the right order. So the ten trials of a protocol cost one sort of floats and ten cheap sorts of integers.

Shape suffixes: Q queries, G gallery images, K CMC entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError

CmcEntries = Literal["identity", "image"]

_SHIFT = np.int64(32)
_LOW_BITS = np.int64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class QueryFigures:
    """Figures of single queries: ``rank`` int64 [Q], ``average_precision`` and ``inverse_penalty`` float64 [Q],
    ``valid`` bool [Q]. Rows of invalid queries hold zeros."""

    rank: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]
    valid: NDArray[np.bool_]

    @classmethod
    def concatenate(cls, parts: Sequence[QueryFigures]) -> QueryFigures:
        """The figures of several blocks of queries as one."""
        return cls(
            rank=np.concatenate([part.rank for part in parts]),
            average_precision=np.concatenate([part.average_precision for part in parts]),
            inverse_penalty=np.concatenate([part.inverse_penalty for part in parts]),
            valid=np.concatenate([part.valid for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one gallery, as fractions: ``cmc`` float64 [K] (entry k-1 is CMC at k), means over valid queries."""

    cmc: NDArray[np.float64]
    mAP: float
    mINP: float
    queries: int
    valid_queries: int
    gallery_size: int

    def rank(self, k: int) -> float:
        """CMC at ``k`` (1-based). Beyond the end of the curve, its last value: no further entry can follow."""
        if k < 1:
            raise ProtocolError(f"CMC was asked at rank {k}; ranks start at 1.")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


def ranking_positions(similarity_QG: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Position of every gallery image in each query's ranking, stable on (distance, gallery position).

    Args:
        similarity_QG: float32 or float64 [Q, G], finite; larger is nearer.

    Returns:
        int32 [Q, G], each row a permutation of 0..G-1.
    """
    distance = -similarity_QG
    if distance.dtype == np.float32:
        order = _stable_order_float32(distance)
    else:
        order = np.argsort(distance, axis=1, kind="stable")
    positions = np.empty(distance.shape, dtype=np.int32)
    np.put_along_axis(positions, order, np.arange(distance.shape[1], dtype=np.int32)[None], axis=1)
    return positions


def _stable_order_float32(distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """``argsort(distance, kind="stable")`` by sorting integers (several times faster: NumPy sorts those with SIMD).

    The bits of a non-negative float order like integers, those of a negative one in reverse; the column in the low
    half makes every key distinct, so that an unstable sort gives the stable order.
    """
    bits = (distance + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0: they tie
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    keys = bits.astype(np.int64)
    keys <<= _SHIFT
    keys |= np.arange(keys.shape[1], dtype=np.int64)
    keys.sort(axis=1)
    keys &= _LOW_BITS
    return keys


def ranking_keys(
    similarity_QG: NDArray[np.floating[Any]],
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    *,
    excluded: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """One sortable integer per (query, gallery image): ranking position in the upper bits, relevance in the lowest.

    Excluded images come after all others and are never relevant, which removes them from every figure.

    Args:
        similarity_QG: float32 or float64 [Q, G].
        query_identity: int64 [Q].
        gallery_identity: int64 [G].
        excluded: bool [Q, G], true where an image is removed from the query's ranking.

    Returns:
        int32 [Q, G]. Any subset of columns holds valid keys of that smaller gallery.
    """
    keys = ranking_positions(similarity_QG)
    relevant = query_identity[:, None] == gallery_identity[None, :]
    if excluded is not None:
        keys += excluded * np.int32(similarity_QG.shape[1])
        relevant &= ~excluded
    keys <<= 1
    keys |= relevant
    return keys


def query_figures(
    keys_QG: NDArray[np.int32], gallery_identity: NDArray[np.int64], *, cmc: CmcEntries = "identity"
) -> QueryFigures:
    """CMC rank, AP and INP of every query.

    Args:
        keys_QG: int32 [Q, G] from :func:`ranking_keys`, or some of its columns.
        gallery_identity: int64 [G], the identity of each column.
        cmc: ``"identity"`` counts one CMC entry per identity (SYSU-MM01), ``"image"`` one per image (RegDB).
    """
    queries = len(keys_QG)
    ranked = np.sort(keys_QG, axis=1)
    rows, columns = np.nonzero(ranked & 1)
    hits = np.bincount(rows, minlength=queries)
    valid = hits > 0
    end = np.cumsum(hits)
    nth = np.arange(1, len(rows) + 1) - (end - hits)[rows]
    precision_sum = np.bincount(rows, weights=nth / (columns + 1), minlength=queries)
    first, last = columns[(end - hits)[valid]], columns[end[valid] - 1]

    rank = np.zeros(queries, dtype=np.int64)
    if cmc == "image":
        rank[valid] = first + 1
    else:
        own_key = ranked[np.flatnonzero(valid), first]
        nearest = _nearest_key_of_identity(keys_QG[valid], gallery_identity)
        rank[valid] = np.count_nonzero(nearest <= own_key[:, None], axis=1)
    inverse_penalty = np.zeros(queries)
    inverse_penalty[valid] = hits[valid] / (last + 1)
    return QueryFigures(
        rank=rank,
        average_precision=precision_sum / np.maximum(hits, 1),
        inverse_penalty=inverse_penalty,
        valid=valid,
    )


def _nearest_key_of_identity(keys_QG: NDArray[np.int32], gallery_identity: NDArray[np.int64]) -> NDArray[np.int32]:
    """Smallest key of each gallery identity, [Q, identities]: its first occurrence in the ranking."""
    by_identity = np.argsort(gallery_identity, kind="stable")
    changes = np.diff(gallery_identity[by_identity], prepend=gallery_identity[by_identity[:1]] - 1)
    return np.minimum.reduceat(np.take(keys_QG, by_identity, axis=1), np.flatnonzero(changes), axis=1)


def scores_from_queries(
    figures: QueryFigures, gallery_identity: NDArray[np.int64], *, cmc: CmcEntries = "identity"
) -> Scores:
    """Means over the valid queries, accumulated in float64.

    The curve has as many entries as distinct gallery identities (``cmc="identity"``) or gallery images (``"image"``).

    Raises:
        ProtocolError: no query has a correct image in its gallery.
    """
    valid_queries = int(np.count_nonzero(figures.valid))
    if valid_queries == 0:
        raise ProtocolError(
            f"None of the {len(figures.valid)} queries has a correct image in its gallery after the exclusion, so no "
            "figure is defined; check that query and gallery hold the same identities."
        )
    entries = len(np.unique(gallery_identity)) if cmc == "identity" else len(gallery_identity)
    counts = np.bincount(figures.rank[figures.valid], minlength=entries + 1)
    return Scores(
        cmc=np.cumsum(counts[1:]) / valid_queries,
        mAP=float(np.mean(figures.average_precision[figures.valid])),
        mINP=float(np.mean(figures.inverse_penalty[figures.valid])),
        queries=len(figures.valid),
        valid_queries=valid_queries,
        gallery_size=len(gallery_identity),
    )


def score_similarity(
    similarity_QG: NDArray[np.floating[Any]],
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    *,
    excluded: NDArray[np.bool_] | None = None,
    cmc: CmcEntries = "identity",
) -> Scores:
    """The figures of one similarity matrix (arguments as of :func:`ranking_keys` and :func:`query_figures`).

    Raises:
        ProtocolError: shapes that do not fit together, values that are not finite, or no valid query.

    >>> similarity = np.array([[0.9, 0.8, 0.1]])
    >>> score_similarity(similarity, np.array([2]), np.array([1, 2, 2])).mAP.__round__(4)
    0.5833
    """
    expected = (len(query_identity), len(gallery_identity))
    if similarity_QG.shape != expected or (excluded is not None and excluded.shape != expected):
        raise ProtocolError(
            f"A similarity matrix of shape {similarity_QG.shape} does not fit {expected[0]} queries and "
            f"{expected[1]} gallery images; give one row per query and one column per gallery image."
        )
    if not np.isfinite(similarity_QG).all():
        raise ProtocolError("The similarity matrix holds NaN or infinite values, which cannot be ranked.")
    keys = ranking_keys(similarity_QG, query_identity, gallery_identity, excluded=excluded)
    figures = query_figures(keys, gallery_identity, cmc=cmc)
    return scores_from_queries(figures, gallery_identity, cmc=cmc)
