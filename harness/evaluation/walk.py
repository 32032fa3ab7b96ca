"""Compiled kernels of the metrics: a stable sort, and one walk down a ranking that keeps the books of many galleries.

A gallery is a subset of a pool of images. The pool is ranked once per query; going down that ranking, every image adds
one to the count of each gallery it is in. The trials and shots of a protocol thus share one sort, and nothing of the
size queries x images x galleries exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_DIGIT_VALUES = 1 << 11


@njit(cache=True, nogil=True)
def stable_ranking(bits_QM, columns_P):  # type: ignore[no-untyped-def]
    """int32 [Q, P], the images of a pool from the most to the least similar; among equal ones the first goes first.

    A least-significant-digit radix sort (11, 11 and 10 bits): linear, and stable by construction.

    Args:
        bits_QM: uint32 [Q, M], the bits of float32 similarities without NaN.
        columns_P: int64 [P], the column of each image of the pool.
    """
    sign, low, full = np.uint32(1 << 31), np.uint32(_DIGIT_VALUES - 1), np.uint32(0xFFFFFFFF)
    queries, images = len(bits_QM), len(columns_P)
    ranking_QP = np.empty((queries, images), np.int32)
    keys = np.empty(images, np.uint32)
    once, twice = np.empty(images, np.uint64), np.empty(images, np.uint64)  # the key above, the image below
    place0, place1, place2 = np.empty((3, _DIGIT_VALUES), np.int32)
    for q in range(queries):
        place0[:], place1[:], place2[:] = 0, 0, 0
        for image in range(images):
            key = bits_QM[q, columns_P[image]]
            if key == sign:  # minus zero ties with zero
                key = np.uint32(0)
            # The bits of a positive float order like integers, those of a negative one in reverse; the largest first.
            key = key if key & sign else full ^ (key | sign)
            keys[image] = key
            place0[key & low] += 1
            place1[(key >> np.uint32(11)) & low] += 1
            place2[key >> np.uint32(22)] += 1
        _starts(place0)
        _starts(place1)
        _starts(place2)
        for image in range(images):
            key = keys[image]
            digit = key & low
            once[place0[digit]] = (np.uint64(key) << np.uint64(32)) | np.uint64(image)
            place0[digit] += 1
        for entry in once:
            digit = np.uint32(entry >> np.uint64(43)) & low
            twice[place1[digit]] = entry
            place1[digit] += 1
        for entry in twice:
            digit = entry >> np.uint64(54)
            ranking_QP[q, place2[digit]] = np.int32(entry & np.uint64(0xFFFFFFFF))
            place2[digit] += 1
    return ranking_QP


@njit(cache=True, nogil=True)
def _starts(counts):  # type: ignore[no-untyped-def]
    """Turn counts into the place where each value's entries begin."""
    total = np.int32(0)
    for value in range(len(counts)):
        count = counts[value]
        counts[value] = total
        total += count


@njit(cache=True, nogil=True)
def walk(  # type: ignore[no-untyped-def]
    ranking_QP, removed_QP, query_identity, pool_identity, member_PG, identities, by_image
):
    """CMC rank, AP and INP of every query in every gallery.

    Args:
        ranking_QP: int [Q, P], the pool's images from the nearest to the farthest.
        removed_QP: bool [Q, P], true where an image is removed from the query's ranking.
        query_identity, pool_identity: int64 [Q] and [P], numbers below ``identities``; a query whose identity is
            nowhere in the pool has any other number.
        member_PG: int16 or int32 [P, G], 1 where an image of the pool is in a gallery, else 0; counts up to P must fit.
        by_image: whether the CMC counts images; else identities.

    Returns:
        rank int64, average precision and inverse negative penalty float64, [Q, G]; zeros where a gallery holds no
        correct image.
    """
    queries, images = ranking_QP.shape
    galleries = member_PG.shape[1]
    rank = np.zeros((queries, galleries), np.int64)
    precision = np.zeros((queries, galleries))
    penalty = np.zeros((queries, galleries))
    for q in range(queries):
        wanted = query_identity[q]
        passed = np.zeros(galleries, member_PG.dtype)  # images of each gallery so far
        met = np.zeros(galleries, member_PG.dtype)  # distinct identities so far
        seen = np.zeros((identities, galleries), member_PG.dtype)
        hits = np.zeros(galleries, np.int32)
        for place in range(images):
            image = ranking_QP[q, place]
            if removed_QP[q, image]:
                continue
            member, before = member_PG[image], seen[pool_identity[image]]
            for gallery in range(galleries):  # no branch: the compiler takes several galleries at once
                passed[gallery] += member[gallery]
                met[gallery] += member[gallery] & ~before[gallery]
                before[gallery] |= member[gallery]
            if pool_identity[image] == wanted:
                for gallery in range(galleries):
                    if member[gallery]:
                        hits[gallery] += 1
                        if hits[gallery] == 1:
                            rank[q, gallery] = passed[gallery] if by_image else met[gallery]
                        penalty[q, gallery] = hits[gallery] / passed[gallery]
                        precision[q, gallery] += penalty[q, gallery]
        for gallery in range(galleries):
            if hits[gallery]:
                precision[q, gallery] /= hits[gallery]
    return rank, precision, penalty


def memberships(galleries: list[NDArray[np.int64]], images: int) -> NDArray[np.signedinteger[Any]]:
    """``member_PG`` of :func:`walk` from each gallery's images, int64 below ``images``."""
    narrow = images <= np.iinfo(np.int16).max  # twice as many galleries in one instruction
    member_PG = np.zeros((images, len(galleries)), dtype=np.int16 if narrow else np.int32)
    for number, gallery in enumerate(galleries):
        member_PG[gallery, number] = 1
    return member_PG
