"""MATLAB files as far as SYSU-MM01 needs them: matrices of real numbers, and cell arrays of them.

Files of version 5 (MathWorks, MAT-File Format: the Level 5 format) are parsed here, because ``scipy.io.loadmat``
allocates what a header claims before it looks for the content, and follows nested cells without end: a file of a few
bytes could take all memory or crash the process. Here nothing is allocated that the file does not hold. Files of
version 7.3 are HDF5 and read by h5py, within the same bounds.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.reading import printable, shortened, unpacked_bound

_MOST_DEPTH = 4  # the permutations are cells of cells of matrices

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL = 1
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800
_EMPTY = np.empty((0, 0))


class _Unfit(Exception):
    """A file that breaks the format, or a bound; the text says how."""


def read_matlab(path: Path, name: str) -> NDArray[Any]:
    """The variable ``name``: a matrix of real numbers, or an object array whose elements are such matrices or arrays.

    Raises:
        DataError: the file is missing, damaged, of another kind, claims more than it holds, or lacks the variable.
    """
    try:
        found = _read(path, name)
    except FileNotFoundError as error:
        raise DataError(f"{path} was not found; it is part of the SYSU-MM01 evaluation files.") from error
    except Exception as error:  # h5py raises many kinds
        raise DataError(
            f"{path} cannot be read as a MATLAB file: {printable(shortened(str(error), most=300))}."
        ) from error
    if found is None:
        raise DataError(f"{path} has no variable {name!r}; is it the file from the dataset's evaluation folder?")
    return found


def _read(path: Path, name: str) -> NDArray[Any] | None:
    bound = unpacked_bound(path)
    if path.stat().st_size > bound:
        raise _Unfit(f"it has {path.stat().st_size:,} bytes, and at most {bound:,} are read")
    with path.open("rb") as file:
        header = file.read(128)
        if header[126:] not in (b"IM", b"MI"):
            raise _Unfit("it does not begin as MATLAB files of version 5 or 7.3 do")
        order = "<" if header[126:] == b"IM" else ">"
        (version,) = struct.unpack_from(f"{order}H", header, 124)
        if version == 0x0200:
            return _read_hdf5(path, name, bound)
        return _read_level_5(file.read(), name, order, bound)


# ---------------------------------------------------------------------------------------------------------------
# version 5: a sequence of elements, each a type, a size and content; a matrix is a sequence of elements itself


def _read_level_5(content: bytes, name: str, order: str, bound: int) -> NDArray[Any] | None:
    for kind, data in _elements(memoryview(content), order):
        if kind == _COMPRESSED:
            unpacked = _inflated(data, bound)
            bound -= len(unpacked)
            ((kind, data),) = _elements(unpacked, order)
        if kind == _MATRIX and len(data):
            matrix = _Matrix.begin(data, order)
            if matrix.name == name.encode():
                return matrix.value(_MOST_DEPTH)
    return None


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise _Unfit("it ends within an element")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, after = place + 8, place + 8 + size
        if kind >> 16:  # up to four bytes are stored in the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        elif kind != _COMPRESSED:
            after += -size % 8
        if start + size > min(len(data), after):
            raise _Unfit(f"an element claims {size:,} bytes where {len(data) - start:,} follow")
        yield kind, data[start : start + size]
        place = after


def _inflated(data: memoryview, most: int) -> memoryview:
    inflater = zlib.decompressobj()
    unpacked = inflater.decompress(data, max(1, most))  # 0 would be no bound
    if not inflater.eof:
        raise _Unfit(f"a compressed variable is cut off, or unpacks to more than {most:,} bytes")
    return memoryview(unpacked)


@dataclass(frozen=True)
class _Matrix:
    """A matrix whose header was read: its class, shape and name; ``rest`` holds its content."""

    class_number: int
    shape: tuple[int, ...]
    name: bytes
    rest: Iterator[tuple[int, memoryview]]
    order: str

    @classmethod
    def begin(cls, data: memoryview, order: str) -> _Matrix:
        rest = _elements(data, order)
        header = [bytes(part) for _, (_, part) in zip(range(3), rest, strict=False)]
        if len(header) < 3 or len(header[0]) < 4 or len(header[1]) < 8 or len(header[1]) % 4:
            raise _Unfit("a matrix has no header")
        (flags,) = struct.unpack_from(f"{order}I", header[0])
        shape = struct.unpack(f"{order}{len(header[1]) // 4}i", header[1])
        if min(shape) < 0 or len(shape) > 8:
            raise _Unfit(f"a matrix claims the shape {list(shape[:8])}")
        if flags & _COMPLEX:
            raise _Unfit("a matrix is complex; expected real numbers")
        return cls(flags & 0xFF, shape, header[2], rest, order)

    def value(self, depth: int) -> NDArray[Any]:
        if self.class_number == _CELL:
            return self._cells(depth)
        if self.class_number not in _CLASSES:
            raise _Unfit(f"a matrix is of class {self.class_number}; expected real numbers or cells")
        kind, data = next(self.rest, (0, memoryview(b"")))
        if kind not in _STORED and self.size:
            raise _Unfit(f"the content of a matrix is of type {kind}; expected real numbers")
        stored = np.frombuffer(data, np.dtype(self.order + _STORED.get(kind, "u1")))
        if len(stored) != self.size:
            raise _Unfit(f"a matrix of the shape {list(self.shape)} holds {len(stored):,} numbers")
        wanted = np.dtype(_CLASSES[self.class_number])
        if stored.dtype.kind == "f" and wanted.kind != "f":
            raise _Unfit("a matrix of whole numbers is stored as fractions")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, as the callers then say
            return stored.astype(wanted).reshape(self.shape, order="F")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def _cells(self, depth: int) -> NDArray[Any]:
        if depth == 0:
            raise _Unfit(f"cells are nested more than {_MOST_DEPTH} deep")
        found = []
        for kind, data in self.rest:
            if kind != _MATRIX:
                raise _Unfit(f"a cell is of type {kind}; expected a matrix")
            found.append(_Matrix.begin(data, self.order).value(depth - 1) if len(data) else _EMPTY)
        if len(found) != self.size:
            raise _Unfit(f"a cell array of the shape {list(self.shape)} holds {len(found):,} cells")
        return _objects(found).reshape(self.shape, order="F")


def _objects(values: list[NDArray[Any]]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array


# ---------------------------------------------------------------------------------------------------------------
# version 7.3: HDF5, which holds the transpose of what MATLAB shows, and cells as references


def _read_hdf5(path: Path, name: str, bound: int) -> NDArray[Any] | None:
    import h5py

    with h5py.File(path, "r") as file:
        if name not in file:
            return None
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise _Unfit(f"`{name}` is a link to elsewhere")
        return _Hdf5(file, bound).value(file[name], _MOST_DEPTH)


@dataclass
class _Hdf5:
    """Reads from ``file`` until ``bound`` bytes are used up, so that cells cannot refer to the same content forever."""

    file: Any
    bound: int

    def value(self, dataset: Any, depth: int) -> NDArray[Any]:
        import h5py

        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise _Unfit("it holds something other than matrices and cells")
        if dataset.external or dataset.is_virtual:
            raise _Unfit("a matrix lies in another file")
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        self.bound -= max(dataset.nbytes, chunk, 64)
        if self.bound < 0:
            raise _Unfit("it unpacks to far more than its size")
        if dataset.attrs.get("MATLAB_empty", 0):
            return _EMPTY
        if dataset.dtype.kind != "O":
            return np.asarray(dataset[()]).T
        if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
            raise _Unfit("it holds text or objects; expected real numbers or cells")
        if depth == 0:
            raise _Unfit(f"cells are nested more than {_MOST_DEPTH} deep")
        references = np.asarray(dataset[()]).T.ravel()
        return _objects([self.value(self.file[reference], depth - 1) for reference in references])
