"""The MATLAB files of SYSU-MM01's authors: gallery permutations, identity lists, feature cells (evaluation.md, 2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.evaluation.matlab import read_matlab

PERMUTATIONS_NAME = "rand_perm_cam.mat"
_LARGEST_NUMBER = 9999  # folders of identities and names of images have four digits

SYSU_TEST_IDENTITIES: tuple[int, ...] = (
    *(6, 10, 17, 21, 24, 25, 27, 28, 31, 34, 36, 37, 40, 41, 42, 43, 44, 45, 49, 50, 51, 54, 63, 69, 75),
    *range(80, 91),
    *(93, 102, 104, 105, 106, 108, 112, 116, 117, 122, 125, 129, 130, 134, 138, 139, 150, 152, 162, 166, 167, 170),
    *(172, 176, 185, 190, 192, 202, 204, 207, 210, 215, 223, 229, 232, 237, 252, 253, 257, 259, 263, 266, 269, 272),
    *(273, 274, 275, 282, 285, 291, 300, 301, 302, 303, 307, 312, 315, 318, 331, 333),
)
"""The 96 test identities of SYSU-MM01 (its ``exp/test_id.txt``)."""


def permutations_in(root: Path) -> Path:
    """Where a SYSU-MM01 tree may hold the permutations."""
    return root / "exp" / PERMUTATIONS_NAME


def read_official_permutations(path: Path) -> dict[tuple[int, int], NDArray[np.int64]]:
    """``rand_perm_cam.mat`` as (camera, identity) -> int64 [10, n], row t a permutation of 1..n.

    Raises:
        DataError: the file is missing or is not that file.
    """
    tables = {
        (camera, identity): table
        for camera, cell in _numbered_cells(read_matlab(path, "rand_perm_cam"))
        for identity, table in _numbered_cells(cell)
        if table.size
    }
    if not tables or not all(table.ndim == 2 and _counts(table) for table in tables.values()):
        raise DataError(
            f"{path} does not hold one table of integers per camera and identity; is it the file from the dataset's "
            "evaluation folder?"
        )
    return {key: table.astype(np.int64) for key, table in tables.items()}


def _numbered_cells(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    return enumerate(array.ravel() if array.dtype == object else (), start=1)


def read_official_identities(path: Path) -> tuple[int, ...]:
    """``test_id.mat`` or ``train_id.mat`` as ascending identities.

    Raises:
        DataError: the file is missing or is not such a file.
    """
    values = read_matlab(path, "id").ravel()
    if not _counts(values):
        raise DataError(f"`id` in {path} is no list of identities; expected whole numbers from 1.")
    return tuple(sorted(int(identity) for identity in values))


def _counts(values: NDArray[Any]) -> bool:
    """Whether these are whole numbers from 1; in MATLAB they are usually of class double."""
    return values.dtype.kind in "iuf" and bool(np.isin(values, np.arange(1, _LARGEST_NUMBER + 1)).all())


def read_cells(path: Path, name: str) -> list[NDArray[Any]]:
    """A cell vector of matrices, in order; empty cells are empty matrices.

    Raises:
        DataError: the file is missing, is no MATLAB file, or the variable is no cell array.
    """
    cells = read_matlab(path, name)
    if cells.dtype != object:
        raise DataError(
            f"`{name}` in {path} is a {cells.dtype} matrix {list(cells.shape)}; expected a cell per identity."
        )
    return list(cells.ravel())
