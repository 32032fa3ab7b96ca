"""The labelled test images, as an evaluation needs them: identity, camera, and number within (identity, camera)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import ProtocolError


@dataclass(frozen=True, eq=False)
class TestSet:
    """Labels of the M test images; row i belongs to row i of the features.

    Attributes:
        identity: int64 [M], not negative.
        camera: int64 [M], 1-based camera numbers of the dataset.
        order: int64 [M], place of the image among the images of its (identity, camera) sorted by file name, from 0.

    Raises:
        ProtocolError: lengths differ, values are not integers, or ``order`` does not number each (identity, camera)
            0, 1, ..., n-1.
    """

    __test__: ClassVar[bool] = False  # pytest collects classes by this prefix

    identity: NDArray[np.int64]
    camera: NDArray[np.int64]
    order: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("identity", "camera", "order"):
            object.__setattr__(self, name, _integers(name, getattr(self, name)))
        if not len(self.identity) == len(self.camera) == len(self.order):
            raise ProtocolError(
                f"The test labels have different lengths: identity {len(self.identity)}, camera {len(self.camera)}, "
                f"order {len(self.order)}; give one entry per test image."
            )
        self._check_numbering()

    def __len__(self) -> int:
        return len(self.identity)

    @classmethod
    def from_names(cls, identity: ArrayLike, camera: ArrayLike, *, names: Sequence[str]) -> TestSet:
        """The test set whose images carry these file names; ``order`` follows from sorting them within each folder."""
        identities, cameras = _integers("identity", identity), _integers("camera", camera)
        if not len(identities) == len(cameras) == len(names):
            raise ProtocolError(
                f"{len(names)} file names were given for {len(identities)} identities and {len(cameras)} cameras; "
                "give one of each per test image."
            )
        by_name = np.array(sorted(range(len(names)), key=lambda row: names[row]), dtype=np.int64)
        in_folders = by_name[np.lexsort((cameras[by_name], identities[by_name]))]
        order = np.empty(len(names), dtype=np.int64)
        order[in_folders] = _places(identities[in_folders], cameras[in_folders])
        return cls(identity=identities, camera=cameras, order=order)

    def _check_numbering(self) -> None:
        rows = np.lexsort((self.order, self.camera, self.identity))
        wrong = self.order[rows] != _places(self.identity[rows], self.camera[rows])
        if wrong.any():
            row = rows[np.argmax(wrong)]
            raise ProtocolError(
                f"Image number {self.order[row]} of identity {self.identity[row]} in camera {self.camera[row]} is "
                "repeated or leaves a gap; the images of each (identity, camera) must be numbered 0, 1, 2, ... by "
                "file name."
            )


def _integers(name: str, values: Any) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ProtocolError(
            f"The test labels {name!r} are of type {array.dtype} and shape {array.shape}; expected integers in one "
            "dimension."
        )
    if array.size and array.min() < 0:
        raise ProtocolError(f"The test labels {name!r} hold {array.min()}; expected no negative number.")
    return array.astype(np.int64)


def _places(identity: NDArray[np.int64], camera: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal (identity, camera)."""
    rows = np.arange(len(identity))
    starts = np.ones(len(identity), dtype=bool)
    starts[1:] = (identity[1:] != identity[:-1]) | (camera[1:] != camera[:-1])
    return rows - np.maximum.accumulate(np.where(starts, rows, 0))
