"""How good pseudo-labels are, measured against the hidden identities.

For the record and the reader only: nothing here is reachable from a part. ARI and NMI (arithmetic mean, as
scikit-learn) are taken over the *clustered* images; outliers enter the outlier share alone, so agreement and outlier
share are to be read together. The share of mixed clusters says nothing about a one-to-one assignment, which has both
modalities in every cluster by construction; association precision does (rendered.md, 3a).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.errors import ContractError
from harness.evaluation.figures import Agreement, Fraction, FrozenModel

OUTLIER = -1


class PartitionQuality(FrozenModel):
    """One partition against the identities. ``ari``, ``nmi`` and ``mixed_share`` are none when nothing is clustered."""

    images: int = Field(ge=0)
    identities: int = Field(ge=0)
    clusters: int = Field(ge=0)
    outlier_share: Fraction
    ari: Agreement | None
    nmi: Fraction | None
    mixed_share: Fraction | None


class AssociationQuality(FrozenModel):
    """Cluster links between two partitions: ``precision`` is the share of links whose clusters have the same majority
    identity (none without links), ``cover`` the share of source clusters that have a link."""

    links: int = Field(ge=0)
    precision: Fraction | None
    cover: Fraction


def partition_quality(
    labels: NDArray[np.integer[Any]],
    identity: NDArray[np.integer[Any]],
    *,
    modality: NDArray[np.integer[Any]],
    scope: NDArray[np.bool_] | None = None,
) -> PartitionQuality:
    """Compare a partition with the identities.

    Args:
        labels: int [N], cluster of each image, -1 = outlier or out of scope.
        identity: int [N].
        modality: int [N], 0 = visible, 1 = infrared.
        scope: bool [N], the images that the partition is about (a per-modality partition: those of its modality); all
            when left out. Only these count as outliers.

    Raises:
        ContractError: lengths differ, or an image out of scope has a cluster.

    >>> labels, identity = np.array([0, 0, 1, -1]), np.array([7, 7, 9, 9])
    >>> quality = partition_quality(labels, identity, modality=np.array([0, 1, 0, 0]))
    >>> quality.clusters, quality.ari, quality.outlier_share, quality.mixed_share
    (2, 1.0, 0.25, 0.5)
    """
    inside = np.ones(len(labels), dtype=bool) if scope is None else scope
    _require_lengths(len(labels), identity=identity, modality=modality, scope=inside)
    if (labels[~inside] != OUTLIER).any():
        raise ContractError(
            "A partition gives a cluster to images outside its scope; label those with -1 or widen the scope."
        )
    clustered = labels != OUTLIER
    images, kept = int(inside.sum()), int(clustered.sum())
    clusters = np.unique(labels[clustered])
    ari, nmi = _agreement(identity[clustered], labels[clustered])
    return PartitionQuality(
        images=images,
        identities=len(np.unique(identity[inside])),
        clusters=len(clusters),
        outlier_share=(images - kept) / images if images else 0.0,
        ari=ari,
        nmi=nmi,
        mixed_share=_mixed_share(labels[clustered], modality[clustered]),
    )


def association_quality(
    labels_from: NDArray[np.integer[Any]],
    labels_to: NDArray[np.integer[Any]],
    *,
    links: NDArray[np.integer[Any]],
    identity: NDArray[np.integer[Any]],
) -> AssociationQuality:
    """Check links between the clusters of two partitions.

    A cluster's majority identity is its most frequent one; of equally frequent ones, the smallest.

    Args:
        labels_from: int [N], clusters 0..K_from-1, -1 = outlier or out of scope.
        labels_to: int [N], clusters 0..K_to-1, likewise.
        links: int [K_from], the linked cluster of the second partition, -1 = none.
        identity: int [N].

    Raises:
        ContractError: lengths differ, or a link names a cluster that does not exist.

    >>> visible, infrared = np.array([0, 1, -1, -1]), np.array([-1, -1, 0, 1])
    >>> quality = association_quality(visible, infrared, links=np.array([0, -1]), identity=np.array([7, 9, 7, 9]))
    >>> quality.precision, quality.cover
    (1.0, 0.5)
    """
    _require_lengths(len(labels_from), labels_to=labels_to, identity=identity)
    majority_from, majority_to = _majority(labels_from, identity), _majority(labels_to, identity)
    if len(links) != len(majority_from) or (links >= len(majority_to)).any() or (links < -1).any():
        raise ContractError(
            f"The links map {len(links)} clusters to values in {_span(links)}; expected one entry for each of the "
            f"{len(majority_from)} clusters, from -1 (none) to {len(majority_to) - 1}."
        )
    linked = np.flatnonzero(links >= 0)
    agree = majority_from[linked] == majority_to[links[linked]]
    return AssociationQuality(
        links=len(linked),
        precision=float(agree.mean()) if len(linked) else None,
        cover=len(linked) / len(links) if len(links) else 0.0,
    )


def pair_precision(
    labels_from: NDArray[np.integer[Any]],
    labels_to: NDArray[np.integer[Any]],
    *,
    links: NDArray[np.integer[Any]] | None,
    identity: NDArray[np.integer[Any]],
    modality: NDArray[np.integer[Any]],
) -> float | None:
    """Of the pairs of a visible and an infrared image that labels take for one person, the share that are.

    A pair counts if its images are in one cluster (``links`` None: the two labellings are one), or in clusters that are
    linked. Pairs are counted by cluster and identity, never listed. None if there is no such pair.

    Args:
        labels_from, labels_to: int [N], -1 = outlier or out of scope.
        links: int [K_from], the linked cluster of ``labels_to``, -1 = none.
        identity, modality: int [N]; 0 = visible, 1 = infrared.
    """
    _require_lengths(len(labels_from), labels_to=labels_to, identity=identity, modality=modality)
    target = np.asarray(labels_from, dtype=np.int64)
    if links is not None:
        target = np.where(target >= 0, np.append(links, OUTLIER)[target], OUTLIER)
    sides = [(target, 0), (np.asarray(labels_to, dtype=np.int64), 1)]
    if links is not None and (modality[labels_from >= 0] == 1).all():  # from infrared clusters
        sides = [(target, 1), (sides[1][0], 0)]
    one, other = (_images_by_cluster(labels, identity, keep=modality == kind) for labels, kind in sides)
    pairs = sum(count * other[0].get(cluster, 0) for cluster, count in one[0].items())
    right = sum(count * other[1].get(key, 0) for key, count in one[1].items())
    return right / pairs if pairs else None


def _images_by_cluster(
    labels: NDArray[np.int64], identity: NDArray[np.integer[Any]], *, keep: NDArray[np.bool_]
) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
    """Numbers of images by cluster, and by cluster and identity."""
    kept = keep & (labels >= 0)
    clusters, counts = np.unique(labels[kept], return_counts=True)
    both, counts_of_both = np.unique(np.stack([labels[kept], identity[kept]]), axis=1, return_counts=True)
    return (
        dict(zip(clusters.tolist(), counts.tolist(), strict=True)),
        dict(zip(map(tuple, both.T.tolist()), counts_of_both.tolist(), strict=True)),
    )


def _agreement(
    identity: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[float | None, float | None]:
    if not len(labels):
        return None, None
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    # NMI can exceed 1 by a rounding error
    nmi = float(np.clip(normalized_mutual_info_score(identity, labels), 0, 1))
    return float(np.clip(adjusted_rand_score(identity, labels), -1, 1)), nmi


def _mixed_share(labels: NDArray[np.integer[Any]], modality: NDArray[np.integer[Any]]) -> float | None:
    if not len(labels):
        return None
    pairs = np.unique(np.stack([labels, modality]), axis=1)
    _, modalities = np.unique(pairs[0], return_counts=True)
    return float(np.mean(modalities > 1))


def _majority(labels: NDArray[np.integer[Any]], identity: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Majority identity of clusters 0..K-1, [K]."""
    kept = labels != OUTLIER
    pairs, counts = np.unique(np.stack([labels[kept], identity[kept]]), axis=1, return_counts=True)
    best = np.lexsort((pairs[1], -counts, pairs[0]))
    clusters, firsts = np.unique(pairs[0][best], return_index=True)
    if not np.array_equal(clusters, np.arange(len(clusters))):
        raise ContractError(f"Clusters must be numbered 0..{len(clusters) - 1} without gaps; found {_span(clusters)}.")
    return pairs[1][best][firsts].astype(np.int64)


def _span(values: NDArray[np.integer[Any]]) -> str:
    return f"{values.min()}..{values.max()}" if len(values) else "nothing"


def _require_lengths(expected: int, **arrays: NDArray[Any]) -> None:
    for name, array in arrays.items():
        if array.shape != (expected,):
            raise ContractError(f"{name!r} has shape {array.shape}, but {expected} labels were given; one per image.")
