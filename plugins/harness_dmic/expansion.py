"""MIE: a query expansion in which every modality, and every camera of it, has the same share (dmic.md 3.2, step 5).

Stated by the paper: the mean over cameras. From public code of the same authors: that the mean is nested (cameras
within modalities), and that neighbours come from the plain ranking.

Shape letters: N images that are clustered together, K entries of a rank list, G groups (cameras of a modality), M
modalities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.clustering.expansion import averaging_matrix
from harness.errors import HarnessError
from harness_dmic.options import Form


@dataclass(frozen=True, slots=True, eq=False)
class CameraGroups:
    """The group (modality, camera) of every image, ``group_N``, and every group's modality, ``modality_G``; from 0."""

    group_N: NDArray[np.int64]
    modality_G: NDArray[np.int64]

    @staticmethod
    def of(modality_N: Tensor, camera_N: Tensor) -> CameraGroups:
        """The groups of images with these modalities and cameras, int [N]."""
        pairs_N2 = np.stack([modality_N.cpu().numpy(), camera_N.cpu().numpy()], axis=1)
        groups_G2, group_N = np.unique(pairs_N2, axis=0, return_inverse=True)
        return CameraGroups(group_N.reshape(-1), np.unique(groups_G2[:, 0], return_inverse=True)[1])

    def weighed(self, form: Form) -> CameraGroups:
        """What weighs the same under ``form``: nested, these groups; flat, all as of one modality; plain, one group."""
        if form == "plain":
            return CameraGroups(np.zeros_like(self.group_N), np.zeros(1, dtype=np.int64))
        return self if form == "nested" else CameraGroups(self.group_N, np.zeros_like(self.modality_G))


@dataclass(frozen=True, eq=False)
class InvariantExpansion:
    """MIE's expansion; subclass it and override :meth:`accepted` to leave out some of the first k2 neighbours.

    ``encoded``: entries of the rank lists that the encoding was made of, None for all. An image without an encoding
    (possible with many duplicates only) has no part in any mean. Raises ``HarnessError`` when the groups are not those
    of the ranked images.
    """

    groups: CameraGroups
    form: Form = "nested"
    encoded: int | None = None

    def accepted(self, nearest_NK: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the neighbours, nearest first, take part: bool [N, K]."""
        return np.ones(nearest_NK.shape, dtype=bool)

    def __call__(self, ranking_NK: NDArray[np.int64], k2: int, /) -> csr_matrix:
        if len(self.groups.group_N) != len(ranking_NK):
            raise HarnessError(
                f"The cameras of {len(self.groups.group_N)} images were given for the expansion of {len(ranking_NK)}; "
                "give one modality and camera per feature row."
            )
        nearest_NK = ranking_NK[:, :k2]
        accepted_NK = self.accepted(nearest_NK)
        with_encoding_NK = accepted_NK & has_encoding(ranking_NK[:, : self.encoded])[nearest_NK]
        nothing_left_N1 = ~with_encoding_NK.any(axis=1, keepdims=True)
        used_NK = np.where(nothing_left_N1, accepted_NK, with_encoding_NK)
        return group_average(nearest_NK, used_NK, self.groups.weighed(self.form))


def group_average(nearest_NK: NDArray[np.int64], used_NK: NDArray[np.bool_], groups: CameraGroups) -> csr_matrix:
    """The averaging matrix [N, N]: equal shares of modalities, within them of groups, within them of used neighbours.

    Groups and modalities that do not occur are left out, never counted as zeros.
    """
    total, size = len(nearest_NK), groups.modality_G.size
    group_NK = groups.group_N[nearest_NK]
    cell_NK = group_NK + size * np.arange(total)[:, None]
    counts_NG = np.bincount(cell_NK.ravel(), weights=used_NK.ravel(), minlength=total * size).reshape(total, size)
    of_modality_GM = (groups.modality_G[:, None] == np.unique(groups.modality_G)).astype(np.float64)
    groups_NM = (counts_NG > 0) @ of_modality_GM
    modalities_N1 = (groups_NM > 0).sum(axis=1, keepdims=True)
    share_NG = 1 / np.maximum(counts_NG * (groups_NM @ of_modality_GM.T) * modalities_N1, 1)
    averages_NN = averaging_matrix(nearest_NK, np.take_along_axis(share_NG, group_NK, axis=1) * used_NK)
    # Entries left out must not be stored: a stored zero makes the encoding longer, and every later step slower.
    averages_NN.eliminate_zeros()
    return averages_NN


def has_encoding(ranking_NK: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an image is in the list of some image of its own list, as a k-reciprocal encoding asks: bool [N]."""
    own_N = np.arange(len(ranking_NK))
    found_N = (ranking_NK == own_N[:, None]).any(axis=1)
    absent = np.flatnonzero(~found_N)
    found_N[absent] = (ranking_NK[ranking_NK[absent]] == absent[:, None, None]).any(axis=(1, 2))
    return found_N
