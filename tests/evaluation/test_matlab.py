"""MATLAB files: as SciPy reads sound ones; hostile ones are refused before they take memory."""

from __future__ import annotations

import io
import struct
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from harness.errors import DataError
from harness.evaluation import read_official_identities, read_official_permutations
from harness.evaluation.matlab import read_matlab

CELL, DOUBLE, STRUCT, INT8 = 1, 6, 2, 8
INT8_DATA, INT32_DATA, UINT32_DATA, DOUBLE_DATA, MATRIX, COMPRESSED = 1, 5, 6, 9, 14, 15


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    padding = b"" if kind == COMPRESSED else bytes(-len(data) % 8)
    return struct.pack(f"{order}II", kind, len(data)) + data + padding


def matrix(kind: int, shape, content: bytes, *, name: bytes = b"", flags: int = 0, order: str = "<") -> bytes:
    header = element(UINT32_DATA, struct.pack(f"{order}II", kind | flags, 0), order)
    header += element(INT32_DATA, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(MATRIX, header + element(INT8_DATA, name, order) + content, order)


def matlab(path, *elements: bytes, order: str = "<"):
    indicator = b"IM" if order == "<" else b"MI"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + struct.pack(f"{order}H", 0x0100) + indicator + b"".join(elements))
    return path


numbers = hnp.arrays(
    st.sampled_from([np.dtype(kind) for kind in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]),
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=4),
)


@st.composite
def cells(draw, contents):
    array = np.empty(draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=3)), dtype=object)
    for place in np.ndindex(array.shape):
        array[place] = draw(contents)
    return array


def same(first, second) -> bool:
    if first.dtype == object or second.dtype == object:
        return first.shape == second.shape and all(map(same, first.ravel(), second.ravel()))
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


@given(value=numbers | cells(numbers) | cells(cells(numbers)), compressed=st.booleans())
def test_a_sound_file_is_read_as_scipy_reads_it(tmp_path_factory, value, compressed):
    path = tmp_path_factory.mktemp("matlab") / "a.mat"
    savemat(path, {"before": np.eye(2), "x": value, "text": "not read"}, do_compression=compressed)
    assert same(read_matlab(path, "x"), loadmat(path, mat_dtype=True)["x"])


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_of_either_byte_order_is_read(tmp_path, order):
    content = element(DOUBLE_DATA, struct.pack(f"{order}2d", 1.5, -2), order)
    path = matlab(tmp_path / "a.mat", matrix(DOUBLE, (2, 1), content, name=b"x", order=order), order=order)
    assert read_matlab(path, "x").tolist() == [[1.5], [-2.0]]


def test_the_files_of_the_authors_are_read_as_scipy_reads_them(splits):
    for file, name in (("rand_perm_cam.mat", "rand_perm_cam"), ("test_id.mat", "id"), ("train_id.mat", "id")):
        assert same(read_matlab(splits / file, name), loadmat(splits / file, mat_dtype=True)[name])


def _nested(depth: int) -> bytes:
    inner = matrix(DOUBLE, (1, 1), element(DOUBLE_DATA, bytes(8)))
    for _ in range(depth):
        inner = matrix(CELL, (1, 1), inner, name=b"")
    return matrix(CELL, (1, 1), inner, name=b"x")


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (matrix(CELL, (HUGE, 1), b"", name=b"x"), "holds 0 cells"),
        (matrix(CELL, (HUGE, HUGE), matrix(DOUBLE, (0, 0), b""), name=b"x"), "holds 1 cells"),
        (matrix(DOUBLE, (HUGE, HUGE), element(DOUBLE_DATA, bytes(8)), name=b"x"), "holds 1 numbers"),
        (matrix(DOUBLE, (-1, -1), element(DOUBLE_DATA, bytes(8)), name=b"x"), "claims the shape"),
        (matrix(DOUBLE, (1,) * 64, element(DOUBLE_DATA, bytes(8)), name=b"x"), "claims the shape"),
        (matrix(DOUBLE, (1, 1), b"", name=b"x"), "is of type 0"),
        (matrix(DOUBLE, (1, 1), struct.pack("<II", DOUBLE_DATA, 2**32 - 1), name=b"x"), "claims 4,294,967,295 bytes"),
        (matrix(DOUBLE, (1, 1), element(DOUBLE_DATA, bytes(8)), name=b"x", flags=0x0800), "complex"),
        (matrix(INT8, (1, 1), element(DOUBLE_DATA, struct.pack("<d", float("nan"))), name=b"x"), "fractions"),
        (matrix(STRUCT, (1, 1), b"", name=b"x"), "class 2"),
        (matrix(17, (1, 1), b"", name=b"x"), "class 17"),
        (element(MATRIX, b"1234"), "within an element"),
        (element(MATRIX, element(UINT32_DATA, b"")), "no header"),
        (_nested(4), "nested more than 4 deep"),
        (_nested(200), "nested more than 4 deep"),
        (element(COMPRESSED, zlib.compress(matrix(DOUBLE, (1, 1), b"", name=b"x"))[:-8]), "cut off"),
    ],
)
def test_what_claims_more_than_there_is_or_is_not_wanted_is_refused(tmp_path, content, complaint):
    path = matlab(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=rf"a\.mat cannot be read as a MATLAB file: .*{complaint}") as caught:
        read_matlab(path, "x")
    assert len(str(caught.value)) < 600


def test_a_compressed_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    zeros = 80 << 20
    content = matrix(DOUBLE, (zeros // 8, 1), element(DOUBLE_DATA, bytes(zeros)), name=b"x")
    path = matlab(tmp_path / "a.mat", element(COMPRESSED, zlib.compress(content)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to more than 67,108,864 bytes"):
        read_matlab(path, "x")


class TestHdf5:
    @pytest.fixture
    def written(self, tmp_path):
        """``written(fill)``: a file of version 7.3 that ``fill`` puts content into."""

        def write(fill):
            path = tmp_path / "a.mat"
            with h5py.File(path, "w", userblock_size=512) as file:
                fill(file)
            with path.open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
            return path

        return write

    def refusal(self, path) -> str:
        with pytest.raises(DataError, match=r"a\.mat cannot be read as a MATLAB file") as caught:
            read_matlab(path, "x")
        return str(caught.value)

    def test_a_matrix_is_read_as_matlab_shows_it(self, written):
        value = np.arange(6.0).reshape(2, 3)
        assert same(read_matlab(written(lambda file: file.create_dataset("x", data=value.T)), "x"), value)

    def test_a_shape_without_content_is_refused(self, written):
        path = written(lambda file: file.create_dataset("x", shape=(1 << 20, 1 << 20), dtype="f8", chunks=(64, 64)))
        assert path.stat().st_size < 100_000
        assert "far more than its size" in self.refusal(path)

    def test_a_chunk_larger_than_its_matrix_is_refused(self, written):
        path = written(
            lambda file: file.create_dataset("x", shape=(1, 1), maxshape=(None, 1), chunks=(1 << 28, 1), dtype="f8")
        )
        assert "far more than its size" in self.refusal(path)

    def test_cells_that_hold_themselves_are_refused(self, written):
        def fill(file):
            cell = file.create_dataset("x", shape=(1, 2), dtype=h5py.ref_dtype)
            cell[0, :] = [cell.ref, cell.ref]

        assert "nested more than 4 deep" in self.refusal(written(fill))

    def test_cells_that_share_one_large_matrix_are_read_within_the_bound_only(self, written):
        def fill(file):
            large = file.create_dataset("large", data=np.zeros((1 << 10, 1 << 10)), compression="gzip")
            cell = file.create_dataset("x", shape=(1, 100), dtype=h5py.ref_dtype)
            cell[0, :] = [large.ref] * 100

        assert "far more than its size" in self.refusal(written(fill))

    def test_a_matrix_in_another_file_is_not_read(self, written, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(64))
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["x"] = np.eye(2)
        layout = h5py.VirtualLayout(shape=(2, 2), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(2, 2))

        def link(file):
            file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")

        def external(file):
            file.create_dataset("x", (8, 1), "f8", external=[(str(tmp_path / "secret"), 0, 64)])

        assert "link to elsewhere" in self.refusal(written(link))
        assert "another file" in self.refusal(written(external))
        assert "another file" in self.refusal(written(lambda file: file.create_virtual_dataset("x", layout)))

    @pytest.mark.parametrize("value", ["text", h5py.Empty("f8")])
    def test_what_is_no_matrix_is_refused(self, written, value):
        assert "it holds" in self.refusal(written(lambda file: file.create_dataset("x", data=value)))

    def test_a_group_is_refused(self, written):
        assert "something other than matrices" in self.refusal(written(lambda file: file.create_group("x")))


@pytest.mark.parametrize("value", [[[1.5]], [[np.nan]], [[np.inf]], [[0.0]], [[-3.0]], [[1e300]]])
def test_identities_that_do_not_count_are_refused(tmp_path, value):
    savemat(tmp_path / "id.mat", {"id": np.array(value)})
    with pytest.raises(DataError, match=r"id\.mat is no list of identities"):
        read_official_identities(tmp_path / "id.mat")


def test_permutations_of_class_double_are_read_as_those_of_integers(tmp_path):
    def tables(dtype):
        cameras = np.empty((6, 1), dtype=object)
        for camera in range(6):
            cameras[camera, 0] = np.empty((1, 2), dtype=object)
            cameras[camera, 0][0, :] = [np.array([[1, 2], [2, 1]], dtype=dtype), np.empty((0, 0))]
        file = io.BytesIO()
        savemat(file, {"rand_perm_cam": cameras})
        (tmp_path / "rand_perm_cam.mat").write_bytes(file.getvalue())
        return read_official_permutations(tmp_path / "rand_perm_cam.mat")

    assert {key: table.tolist() for key, table in tables(float).items()} == {
        key: table.tolist() for key, table in tables(np.uint8).items()
    }
    assert sorted(tables(float)) == [(camera, 1) for camera in range(1, 7)]


def test_text_cells_in_the_place_of_permutations_are_refused(tmp_path):
    cells_of_text = np.empty((1, 2), dtype=object)
    cells_of_text[0, :] = ["one", "two"]
    savemat(tmp_path / "rand_perm_cam.mat", {"rand_perm_cam": cells_of_text})
    with pytest.raises(DataError, match="class 4; expected real numbers or cells"):
        read_official_permutations(tmp_path / "rand_perm_cam.mat")
