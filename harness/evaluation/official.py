"""The MATLAB files of SYSU-MM01's authors: gallery permutations, identity lists, feature cells (evaluation.md, 2.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

PERMUTATIONS_NAME = "rand_perm_cam.mat"

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
    cameras = _read_variable(path, "rand_perm_cam").ravel()
    tables = {
        (camera, identity): np.asarray(table)
        for camera, cell in enumerate(cameras, start=1)
        for identity, table in enumerate(np.ravel(cell), start=1)
    }
    tables = {key: table for key, table in tables.items() if table.size}
    if not tables or any(table.ndim != 2 or table.dtype.kind not in "iu" for table in tables.values()):
        raise DataError(
            f"{path} does not hold one table of integers per camera and identity; is it the file from the dataset's "
            "evaluation folder?"
        )
    return {key: table.astype(np.int64) for key, table in tables.items()}


def read_official_identities(path: Path) -> tuple[int, ...]:
    """``test_id.mat`` or ``train_id.mat`` as ascending identities.

    Raises:
        DataError: the file is missing or is not such a file.
    """
    return tuple(sorted(int(identity) for identity in _read_variable(path, "id").ravel()))


def read_cells(path: Path, name: str) -> list[NDArray[Any]]:
    """A cell vector of matrices, in order; empty cells are empty matrices.

    Raises:
        DataError: the file is missing, is no MATLAB file, or the variable is no cell array.
    """
    cells = _read_variable(path, name)
    if cells.dtype != object:
        raise DataError(
            f"`{name}` in {path} is a {cells.dtype} matrix {list(cells.shape)}; expected a cell per identity."
        )
    return [np.asarray(cell) for cell in cells.ravel()]


def _read_variable(path: Path, name: str) -> NDArray[Any]:
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path} was not found; it is part of the SYSU-MM01 evaluation files.")
    try:
        content = loadmat(path)
    except NotImplementedError:  # saved with -v7.3, which is HDF5
        content = _read_hdf5(path, name)
    except Exception as error:  # loadmat raises many kinds, even TypeError, on damaged files
        raise DataError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if name not in content:
        raise DataError(f"{path} has no variable {name!r}; is it the file from the dataset's evaluation folder?")
    return np.asarray(content[name])


def _read_hdf5(path: Path, name: str) -> dict[str, NDArray[Any]]:
    import h5py

    try:
        with h5py.File(path) as file:
            return {name: _hdf5_value(file, file[name])} if name in file else {}
    except Exception as error:  # h5py, too, raises many kinds
        raise DataError(f"{path} cannot be read as a MATLAB 7.3 file: {error}") from error


def _hdf5_value(file: Any, dataset: Any) -> NDArray[Any]:
    """A matrix, or a vector of cells as objects; HDF5 holds the transpose of what MATLAB shows."""
    if dataset.attrs.get("MATLAB_empty", 0):
        return np.empty((0, 0))
    value = np.asarray(dataset[()]).T
    if value.dtype != object:
        return value
    cells = np.empty(value.size, dtype=object)
    for place, reference in enumerate(value.ravel()):
        cells[place] = _hdf5_value(file, file[reference])
    return cells
