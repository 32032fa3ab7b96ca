"""Which visible images form the gallery of each trial (evaluation.md, 2.1 and 2.2).

The picks depend only on the number of images of each (identity, camera), in a fixed order. The seeded rule draws all of
a trial's picks from one stream, so one stray file changes the whole gallery: the counts must be those of the dataset.
A private generator is used; the process's global one is never touched.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError
from harness.evaluation.protocols import GalleryRule, Protocol
from harness.evaluation.test_set import TestSet

Permutations = Mapping[tuple[int, int], NDArray[np.integer]]
"""(camera, identity) -> [trials, n]: row t is a permutation of 1..n, n the number of images of that identity there."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The images of one identity in one camera: ``rows`` int64 [n], rows of the test set by ascending file name."""

    identity: int
    camera: int
    rows: NDArray[np.int64]


def gallery_folders(test_set: TestSet, rule: GalleryRule, cameras: Iterable[int]) -> list[Folder]:
    """The folders of these cameras, from which galleries are drawn, in the order of the rule.

    Rule S goes through the identities as four-digit strings and, for each, the cameras; rule O camera by camera with
    ascending identities. Folders without images do not exist.
    """
    rows = np.flatnonzero(np.isin(test_set.camera, list(cameras)))
    rows = rows[np.lexsort((test_set.order[rows], test_set.camera[rows], test_set.identity[rows]))]
    labels = np.stack([test_set.identity[rows], test_set.camera[rows]])
    bounds = np.flatnonzero((np.diff(labels, axis=1) != 0).any(axis=0)) + 1
    folders = [
        Folder(int(test_set.identity[part[0]]), int(test_set.camera[part[0]]), part)
        for part in np.split(rows, bounds)
        if len(part)
    ]
    if rule == "O":
        return sorted(folders, key=lambda folder: (folder.camera, folder.identity))
    return sorted(folders, key=lambda folder: (f"{folder.identity:04d}", folder.camera))


def seeded_picks(lengths: Iterable[int], shots: int, *, seed: int) -> list[list[int]]:
    """0-based picks of rule S from lists of these lengths, by ``random.choice`` (one shot) or ``random.sample``.

    >>> seeded_picks([42, 29, 20, 20], 1, seed=0)
    [[24], [24], [13], [1]]
    """
    generator = random.Random(seed)
    if shots == 1:
        return [[generator.choice(range(length))] for length in lengths]
    return [generator.sample(range(length), shots) for length in lengths]


def draw_galleries(
    test_set: TestSet, protocol: Protocol, *, trials: int, permutations: Permutations | None = None
) -> list[NDArray[np.int64]]:
    """Each trial's gallery as rows of the test set, int64, folder by folder in gallery order.

    Raises:
        ProtocolError: too few images in a folder, or permutations that are missing or do not fit.
    """
    if protocol.gallery_rule == "fixed":
        return [gallery_order(test_set, "fixed", protocol.gallery_cameras)]
    folders = gallery_folders(test_set, protocol.gallery_rule, protocol.gallery_cameras)
    _require_shots(folders, protocol)
    if protocol.gallery_rule == "S":
        return [_seeded_gallery(folders, protocol, trial) for trial in range(trials)]
    return _official_galleries(folders, protocol, trials=trials, permutations=permutations)


def gallery_order(test_set: TestSet, rule: GalleryRule, cameras: Iterable[int]) -> NDArray[np.int64]:
    """Every image of these cameras in gallery order, which decides ties: int64, rows of the test set."""
    if rule == "fixed":
        return np.flatnonzero(np.isin(test_set.camera, list(cameras)))
    return np.concatenate([folder.rows for folder in gallery_folders(test_set, rule, cameras)])


def _require_shots(folders: list[Folder], protocol: Protocol) -> None:
    shots = protocol.shots or 1
    for folder in folders:
        if len(folder.rows) < shots:
            raise ProtocolError(
                f"Identity {folder.identity} has {len(folder.rows)} images in camera {folder.camera}, but "
                f"{protocol.identifier} takes {shots} of every (identity, camera); use a single-shot protocol or a "
                "larger test set."
            )


def _seeded_gallery(folders: list[Folder], protocol: Protocol, trial: int) -> NDArray[np.int64]:
    picks = seeded_picks((len(folder.rows) for folder in folders), protocol.shots or 1, seed=trial)
    return np.concatenate([folder.rows[pick] for folder, pick in zip(folders, picks, strict=True)])


def _official_galleries(
    folders: list[Folder], protocol: Protocol, *, trials: int, permutations: Permutations | None
) -> list[NDArray[np.int64]]:
    if permutations is None:
        raise ProtocolError(
            f"{protocol.identifier} takes its galleries from the official permutations, but none were given; read them "
            "from the dataset's rand_perm_cam.mat or use the S protocol."
        )
    shots = protocol.shots or 1
    firsts = [_official_picks(folder, permutations, trials=trials)[:, :shots] for folder in folders]
    return [
        np.concatenate([folder.rows[first[trial]] for folder, first in zip(folders, firsts, strict=True)])
        for trial in range(trials)
    ]


def _official_picks(folder: Folder, permutations: Permutations, *, trials: int) -> NDArray[np.int64]:
    """0-based permutations of one folder's images, [trials, n]."""
    where = f"identity {folder.identity} in camera {folder.camera}"
    if (folder.camera, folder.identity) not in permutations:
        raise ProtocolError(f"The official permutations hold nothing for {where}, which the test set has images of.")
    table = np.asarray(permutations[folder.camera, folder.identity], dtype=np.int64) - 1
    images = len(folder.rows)
    if table.ndim != 2 or table.shape[1] != images or len(table) < trials:
        raise ProtocolError(
            f"The official permutations for {where} have shape {table.shape}; expected at least {trials} rows for the "
            f"trials and {images} columns, one per image on disk. Check the images against the dataset's release."
        )
    if (np.sort(table, axis=1) != np.arange(images)).any():
        raise ProtocolError(f"A row of the official permutations for {where} is no permutation of 1..{images}.")
    return table[:trials]
