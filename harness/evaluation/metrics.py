"""CMC, average precision and inverse negative penalty of ranked galleries, vectorised over queries.

The rules are those of the official SYSU-MM01 evaluation (wuancong/SYSU-MM01, ``evaluation/``) and, for INP, of AGW
(Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021); evaluation.md, sections
3 to 5. For one query, after the exclusion, let ``g_1, g_2, ...`` be the gallery identities by ascending distance, ``R``
the number of correct images and ``p_n`` the rank of the n-th correct one:

- CMC rank, one entry per identity: position of the query's identity among the *first* occurrences of each identity;
- CMC rank, instance level: ``p_1``;
- AP = (1/R) sum_n n / p_n over all images, without interpolation;
- INP = R / p_R.

A query with R = 0 is invalid: it enters no mean and no denominator. Ties are broken by gallery position, as by the
official stable sort.

Shape suffixes: Q queries, P images of a pool, G galleries (subsets of the pool), K CMC entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError

CmcEntries = Literal["identity", "image"]


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


@dataclass(frozen=True, slots=True)
class QueryFigures:
    """Figures of single queries in each of G galleries, [Q, G]: ``rank`` int64 (0 for an invalid query),
    ``average_precision`` and ``inverse_penalty`` float64."""

    rank: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]

    @classmethod
    def concatenate(cls, blocks: Sequence[QueryFigures]) -> QueryFigures:
        """The figures of several blocks of queries as one."""
        return cls(
            rank=np.concatenate([block.rank for block in blocks]),
            average_precision=np.concatenate([block.average_precision for block in blocks]),
            inverse_penalty=np.concatenate([block.inverse_penalty for block in blocks]),
        )


class Galleries:
    """Subsets of a pool of images that are scored together.

    Args:
        pool_identity: int64 [P].
        members: per gallery int64, positions in the pool.
        cmc: ``"identity"`` counts one CMC entry per identity (SYSU-MM01), ``"image"`` one per image (RegDB).
    """

    def __init__(self, pool_identity: NDArray[np.int64], members: list[NDArray[np.int64]], *, cmc: CmcEntries) -> None:
        from harness.evaluation.walk import memberships

        self._identities, self._code = np.unique(pool_identity, return_inverse=True)
        self.members, self.cmc = members, cmc
        self._membership = memberships(members, len(pool_identity))

    def query_figures(
        self,
        similarity_QM: NDArray[np.float32],
        query_identity: NDArray[np.int64],
        *,
        columns: NDArray[np.int64] | None = None,
        excluded: NDArray[np.bool_] | None = None,
    ) -> QueryFigures:
        """The figures of every query in every gallery, from one sort of the pool.

        Args:
            similarity_QM: float32 [Q, M], finite; larger is nearer.
            query_identity: int64 [Q].
            columns: int64 [P], the column of each image of the pool; default: column p.
            excluded: bool [Q, P], true where an image is removed from the query's ranking.
        """
        from harness.evaluation.walk import stable_ranking, walk

        pool = np.arange(len(self._code)) if columns is None else columns
        ranking = stable_ranking(similarity_QM.view(np.uint32), pool)
        removed = np.zeros(ranking.shape, dtype=bool) if excluded is None else excluded
        place = np.searchsorted(self._identities, query_identity).clip(max=len(self._identities) - 1)
        code = np.where(self._identities[place] == query_identity, place, -1)
        by_image = self.cmc == "image"
        return QueryFigures(
            *walk(ranking, removed, code, self._code, self._membership, len(self._identities), by_image)
        )

    def scores(self, figures: QueryFigures, number: int) -> Scores:
        """Means over the valid queries, accumulated in float64, for the gallery of this number.

        The curve has as many entries as distinct gallery identities (``cmc="identity"``) or gallery images
        (``"image"``).

        Raises:
            ProtocolError: no query has a correct image.
        """
        gallery, rank = self.members[number], figures.rank[:, number]
        valid = rank > 0
        if not valid.any():
            raise ProtocolError(
                f"None of the {len(valid)} queries has a correct image in its gallery after the exclusion, so no "
                "figure is defined; check that query and gallery hold the same identities."
            )
        entries = len(np.unique(self._code[gallery])) if self.cmc == "identity" else len(gallery)
        counts = np.bincount(rank[valid], minlength=entries + 1)
        return Scores(
            cmc=np.cumsum(counts[1:]) / counts[1:].sum(),
            mAP=float(np.mean(figures.average_precision[valid, number])),
            mINP=float(np.mean(figures.inverse_penalty[valid, number])),
            queries=len(valid),
            valid_queries=int(valid.sum()),
            gallery_size=len(gallery),
        )


def score_similarity(
    similarity_QG: NDArray[np.floating[Any]],
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    *,
    excluded: NDArray[np.bool_] | None = None,
    cmc: CmcEntries = "identity",
) -> Scores:
    """The figures of one similarity matrix, ranked in float32.

    Args:
        similarity_QG: float32 or float64 [Q, gallery images], finite; larger is nearer.
        query_identity, gallery_identity: int64.
        excluded: bool like ``similarity_QG``, true where an image is removed from the query's ranking.
        cmc: one CMC entry per ``"identity"`` (SYSU-MM01) or per ``"image"`` (RegDB).

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
    if 0 in expected:
        raise ProtocolError(
            f"{expected[0]} queries and {expected[1]} gallery images were given; both must be at least 1."
        )
    if not np.isfinite(similarity_QG).all():
        raise ProtocolError("The similarity matrix holds NaN or infinite values, which cannot be ranked.")
    galleries = Galleries(gallery_identity, [np.arange(expected[1])], cmc=cmc)
    figures = galleries.query_figures(similarity_QG.astype(np.float32), query_identity, excluded=excluded)
    return galleries.scores(figures, 0)
