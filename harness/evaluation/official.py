"""The MATLAB files that SYSU-MM01's authors ship: gallery permutations and identity lists (evaluation.md, 2.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError


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


def _read_variable(path: Path, name: str) -> NDArray[Any]:
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path} was not found; it is part of the SYSU-MM01 evaluation files.")
    try:
        content = loadmat(path)
    except Exception as error:  # loadmat raises many kinds, even TypeError, on damaged files
        raise DataError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if name not in content:
        raise DataError(f"{path} has no variable {name!r}; is it the file from the dataset's evaluation folder?")
    return np.asarray(content[name])
