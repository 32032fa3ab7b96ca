"""Clusters against the hidden identities: some to look at, and which people are split or merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.manifest import INFRARED, VISIBLE, Manifest
from harness.report.source import Labels

IMAGES = 12
"""Images shown of a cluster."""
EACH = 2
"""Clusters of each kind."""
MOST_LISTED = 8
_LEAST_SHARE = 0.2  # of a cluster's images: fewer are stray images, not a person that was merged

Kind = Literal["largest", "least pure", "random"]


@dataclass(frozen=True)
class Member:
    """An image of a cluster: row of the training set, camera, identity, and whether it is the majority's."""

    row: int
    camera: int
    identity: int
    majority: bool


@dataclass(frozen=True)
class ClusterSheet:
    """A cluster: number, images by modality, share of its most frequent identity, identities, and some of its images.

    ``link``: what the labels link it with, in words.
    """

    kind: Kind
    number: int
    visible: int
    infrared: int
    purity: float
    identities: int
    members: tuple[Member, ...]
    link: str = ""


@dataclass(frozen=True)
class PartitionSheets:
    """One partition. ``split``: (identity, clusters, images, outliers) of people in most clusters; ``merged``: clusters
    of which at least two people have a fifth each; ``purity``: share of images with their cluster's majority."""

    name: str
    clusters: int
    images: int
    outliers: int
    purity: float | None
    split_identities: int
    identities: int
    split: tuple[tuple[int, int, int, int], ...]
    merged: int
    sheets: tuple[ClusterSheet, ...]


def cluster_sheets(labels: Labels, train: Manifest, *, seed: int) -> list[PartitionSheets]:
    """A sheet for each partition, the joint one first: it says most."""
    order = sorted(labels.partitions, key=lambda name: (name in ("visible", "infrared"), name != "visible", name))
    return [_partition(name, labels, train, np.random.default_rng(seed)) for name in order]


def _partition(name: str, labels: Labels, train: Manifest, generator: np.random.Generator) -> PartitionSheets:
    cluster_N = labels.partitions[name]
    scope = {"visible": train.modality == VISIBLE, "infrared": train.modality == INFRARED}.get(name)
    inside = np.ones(len(train), dtype=bool) if scope is None else scope
    clustered = cluster_N >= 0
    rows = [np.flatnonzero(cluster_N == number) for number in range(int(cluster_N.max(initial=-1)) + 1)]
    majority = [_majority(train.identity[members]) for members in rows]
    purity = np.array([share for _, share in majority])
    spread = _spread(cluster_N, train.identity, inside)
    return PartitionSheets(
        name=name,
        clusters=len(rows),
        images=int(inside.sum()),
        outliers=int((inside & ~clustered).sum()),
        purity=sum(share * len(of) for (_, share), of in zip(majority, rows, strict=True))
        / max(1, int(clustered.sum()))
        if rows
        else None,
        split_identities=sum(clusters > 1 for _, clusters, _, _ in spread),
        identities=len(spread),
        split=tuple(entry for entry in spread if entry[1] > 1)[:MOST_LISTED],
        merged=sum(_is_merged(train.identity[members]) for members in rows),
        sheets=tuple(
            _sheet(kind, number, rows[number], train, majority[number], _link(name, number, labels, train))
            for kind, number in _chosen([len(members) for members in rows], purity, generator)
        ),
    )


def _majority(identity: NDArray[np.int64]) -> tuple[int, float]:
    """The most frequent identity (of equals, the smallest) and its share."""
    people, counts = np.unique(identity, return_counts=True)
    return (int(people[counts.argmax()]), float(counts.max() / counts.sum())) if len(people) else (-1, 0.0)


def _is_merged(identity: NDArray[np.int64]) -> bool:
    _, counts = np.unique(identity, return_counts=True)
    return bool((counts >= _LEAST_SHARE * len(identity)).sum() > 1)


def _spread(
    cluster_N: NDArray[np.int64], identity_N: NDArray[np.int64], inside: NDArray[np.bool_]
) -> list[tuple[int, int, int, int]]:
    """(identity, clusters, images, outliers), those in most clusters first."""
    found = []
    for person in np.unique(identity_N[inside]).tolist():
        of_person = cluster_N[inside & (identity_N == person)]
        kept = of_person[of_person >= 0]
        found.append((person, len(np.unique(kept)), len(of_person), len(of_person) - len(kept)))
    return sorted(found, key=lambda entry: (-entry[1], -entry[3], entry[0]))


def _chosen(
    sizes: Sequence[int], purity: NDArray[np.float64], generator: np.random.Generator
) -> list[tuple[Kind, int]]:
    """Clusters of each kind; none is taken twice."""
    numbers = np.arange(len(sizes))
    orders: dict[Kind, NDArray[np.int64]] = {
        "largest": np.lexsort((numbers, -np.asarray(sizes, dtype=np.int64))),
        "least pure": np.lexsort((numbers, -np.asarray(sizes, dtype=np.int64), purity)),
        "random": generator.permutation(len(sizes)),
    }
    taken: dict[int, Kind] = {}
    for kind, order in orders.items():
        for number in [number for number in order.tolist() if number not in taken][:EACH]:
            taken[number] = kind
    return [(kind, number) for number, kind in taken.items()]


def _sheet(
    kind: Kind, number: int, rows: NDArray[np.int64], train: Manifest, majority: tuple[int, float], link: str
) -> ClusterSheet:
    person, share = majority
    modality, identity = train.modality[rows], train.identity[rows]
    order = rows[np.lexsort((rows, train.camera[rows], identity, identity != person))]
    if len(order) > IMAGES:  # evenly, so that the minority is seen
        order = order[np.linspace(0, len(order) - 1, IMAGES).round().astype(np.int64)]
    members = tuple(
        Member(int(row), int(train.camera[row]), int(train.identity[row]), bool(train.identity[row] == person))
        for row in order
    )
    return ClusterSheet(
        kind=kind,
        number=number,
        visible=int((modality == VISIBLE).sum()),
        infrared=int((modality == INFRARED).sum()),
        purity=share,
        identities=len(np.unique(identity)),
        members=members,
        link=link,
    )


def _link(name: str, number: int, labels: Labels, train: Manifest) -> str:
    said = []
    for link, targets in labels.links.items():
        source, _, target = link.partition(">")
        if source != name:
            continue
        linked = int(targets[number])
        if linked < 0:
            said.append(f"linked with no {target} cluster")
            continue
        one = _majority(train.identity[labels.partitions[source] == number])[0]
        other = _majority(train.identity[labels.partitions[target] == linked])[0]
        verdict = "the same person" if one == other else "another person"
        said.append(f"linked with {target} cluster {linked}, by majority {verdict}")
    return "; ".join(said)
