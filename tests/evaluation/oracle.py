"""The metrics of one query at a time, in the most literal float64 form, to check the vectorised ones against."""

from __future__ import annotations

import numpy as np


def naive_query(distance, query_identity, gallery_identity, *, excluded, cmc):
    """(rank, AP, INP) of one query, or None when it has no correct image."""
    kept = [g for g in range(len(gallery_identity)) if not excluded[g]]
    ranking = sorted(kept, key=lambda g: (distance[g], g))
    identities = [gallery_identity[g] for g in ranking]
    places = [place for place, identity in enumerate(identities, start=1) if identity == query_identity]
    if not places:
        return None
    precisions = [found / place for found, place in enumerate(places, start=1)]
    if cmc == "image":
        rank = places[0]
    else:
        seen = []
        for identity in identities:
            if identity not in seen:
                seen.append(identity)
        rank = seen.index(query_identity) + 1
    return rank, sum(precisions) / len(places), len(places) / places[-1]


def naive_scores(similarity, query_identity, gallery_identity, *, excluded=None, cmc="identity"):
    """(cmc curve, mAP, mINP, valid queries) by a loop over queries."""
    if excluded is None:
        excluded = np.zeros(similarity.shape, dtype=bool)
    found = [
        naive_query(-row, identity, gallery_identity, excluded=mask, cmc=cmc)
        for row, identity, mask in zip(similarity, query_identity, excluded, strict=True)
    ]
    found = [entry for entry in found if entry is not None]
    entries = len(set(gallery_identity.tolist())) if cmc == "identity" else len(gallery_identity)
    curve = [sum(rank <= k for rank, _, _ in found) / len(found) for k in range(1, entries + 1)]
    return (
        curve,
        sum(precision for _, precision, _ in found) / len(found),
        sum(penalty for _, _, penalty in found) / len(found),
        len(found),
    )
