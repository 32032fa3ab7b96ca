"""Files of permutations and of embeddings: read and scored, or refused, whatever bytes they hold."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from scipy.io import savemat

from harness.evaluation import (
    TestSet,
    evaluate_all,
    protocols_of,
    read_official_identities,
    read_official_permutations,
)
from harness.evaluation.embeddings import ranked_features, read_embeddings
from harness.evaluation.galleries import draw_galleries
from harness.evaluation.official import SYSU_TEST_IDENTITIES
from tests.evaluation.test_embeddings import write_cells
from tests.fuzz.fuzzing import files_like, mutations_of, outcome

OFFICIAL = next(protocol for protocol in protocols_of("sysu-mm01") if protocol.gallery_rule == "O")
WORDS = [b"('descr', '|O')", b"'<U99999999'", b"((((((", b">f8", b"<M8", b"99999999", b"(36,)", b"{"]
CAMERAS, IDENTITIES, IMAGES = range(1, 7), (1, 2, 3), 2
SMALL = TestSet(
    identity=np.tile(np.repeat(IDENTITIES, IMAGES), len(CAMERAS)),
    camera=np.repeat(CAMERAS, len(IDENTITIES) * IMAGES),
    order=np.tile(range(IMAGES), len(CAMERAS) * len(IDENTITIES)),
)


def _permutations(*, compressed: bool) -> bytes:
    table = np.array([[1, 2], [2, 1]] * 5, dtype=np.uint8)
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(6):
        cameras[camera, 0] = np.empty((1, len(IDENTITIES)), dtype=object)
        cameras[camera, 0][0, :] = [table] * len(IDENTITIES)
    file = io.BytesIO()
    savemat(file, {"rand_perm_cam": cameras, "other": np.eye(2)}, do_compression=compressed)
    return file.getvalue()


def _arrays() -> dict[str, np.ndarray]:
    features = np.random.default_rng(0).normal(size=(len(SMALL), 4)).astype(np.float32)
    return {"features": features, "identities": SMALL.identity, "cameras": SMALL.camera}


def _names() -> list[str]:
    return [f"cam{c}/{i:04d}/{k:04d}.jpg" for c, i, k in zip(SMALL.camera, SMALL.identity, SMALL.order, strict=True)]


def _npz(arrays, *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


@st.composite
def _npz_with_a_damaged_array(draw, arrays) -> bytes:
    """An archive that is sound, so that what is damaged is the array and not its checksum."""
    damaged = draw(st.sampled_from(sorted(arrays)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            content = member.getvalue()
            if name == damaged:
                content = draw(mutations_of(content, words=WORDS, resized=draw(st.booleans())))
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _score(embeddings) -> None:
    """What ``harness evaluate`` does with embeddings; it may refuse them, too."""
    outcome(lambda: _evaluate(embeddings, "cosine"))
    outcome(lambda: _evaluate(embeddings, "euclidean"))


def _evaluate(embeddings, distance) -> None:
    features, _ = ranked_features(embeddings, distance=distance, flip=False)
    evaluate_all(
        features,
        embeddings.test_set,
        protocols_of("regdb"),
        trials=1,
        threads=1,
        distance=distance,
        not_defined=lambda protocol, error: None,
    )


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_damaged_permutation_file_is_read_or_refused(tmp_path, fuzz, refusing, compressed):
    path = tmp_path / "rand_perm_cam.mat"
    valid = _permutations(compressed=compressed)
    path.write_bytes(valid)
    assert len(draw_galleries(SMALL, OFFICIAL, trials=10, permutations=read_official_permutations(path))) == 10

    def check(content: bytes) -> None:
        path.write_bytes(content)
        tables = refusing(path, lambda: read_official_permutations(path))
        if tables is not None:
            _, error = outcome(lambda: draw_galleries(SMALL, OFFICIAL, trials=10, permutations=tables))
            assert error is None or "official permutations" in str(error)

    fuzz(files_like(valid, valid[:128]), check)


def test_a_damaged_identity_file_is_read_or_refused(tmp_path, fuzz, refusing):
    path = tmp_path / "test_id.mat"
    savemat(path, {"id": np.array([[2.0, 3.0, 5.0]])})

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refusing(path, lambda: read_official_identities(path))

    fuzz(files_like(path.read_bytes()), check)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_damaged_npz_file_is_scored_or_refused(tmp_path, fuzz, refusing, compressed):
    path = tmp_path / "features.npz"
    arrays = {**_arrays(), "paths": np.array(_names())}
    valid = _npz(arrays, compressed=compressed)

    def check(content: bytes) -> None:
        path.write_bytes(content)
        embeddings = refusing(path, lambda: read_embeddings(path))
        if embeddings is not None:
            _score(embeddings)

    damaged = _npz_with_a_damaged_array(arrays)
    fuzz(damaged | damaged | files_like(valid, words=[*WORDS, b"PK\x03\x04"]), check)


def test_an_npz_file_with_any_array_in_the_place_of_another_is_scored_or_refused(tmp_path, fuzz, refusing):
    path = tmp_path / "features.npz"
    fitting = st.sampled_from([(36,), (36, 4)])
    sizes = fitting | fitting | hnp.array_shapes(min_dims=0, max_dims=3, max_side=5)
    dtypes = hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.scalar_dtypes()
    arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, sizes))
    names = st.sampled_from(["features", "features_mirrored", "identities", "cameras", "paths"])

    def check(change) -> None:
        name, array = change
        path.write_bytes(_npz({**_arrays(), name: array}))
        embeddings = refusing(path, lambda: read_embeddings(path))
        if embeddings is not None:
            _score(embeddings)

    fuzz(st.tuples(names, arrays), check)


def test_a_damaged_safetensors_file_is_scored_or_refused(tmp_path, fuzz, refusing):
    path = tmp_path / "features.safetensors"
    about = {"paths": _names(), "protocol": "regdb/visible-to-infrared/v1"}
    valid = save(_arrays(), metadata={"harness": json.dumps(about)})

    def check(content: bytes) -> None:
        path.write_bytes(content)
        embeddings = refusing(path, lambda: read_embeddings(path))
        if embeddings is not None:
            _score(embeddings)

    fuzz(files_like(valid, words=[b'"F64"', b'"BF16"', b"[9999999999,0]", b'"paths"', b"\\u0000", b"[[[["]), check)


def test_any_metadata_are_read_or_refused(tmp_path, fuzz, refusing):
    path = tmp_path / "features.safetensors"
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner), max_leaves=6
    )
    about = st.builds(lambda paths, protocol: {"paths": paths, "protocol": protocol}, values, values)

    def check(entry: tuple[str, str]) -> None:
        path.write_bytes(save(_arrays(), metadata=dict([entry])))
        embeddings = refusing(path, lambda: read_embeddings(path))
        if embeddings is not None:
            assert isinstance((embeddings.about or {}).get("protocol", ""), str)

    texts = (values | about | st.lists(st.text(), min_size=36, max_size=36, unique=True)).map(json.dumps) | st.text()
    fuzz(st.tuples(st.sampled_from(["harness", "paths"]), texts), check)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_damaged_official_cells_are_scored_or_refused(tmp_path, fuzz, version):
    folder = tmp_path / "feature"
    folder.mkdir()
    cells = [np.eye(3)[: 1 + number % 3] for number in range(SYSU_TEST_IDENTITIES[1])]
    path = folder / "x_cam3.mat"
    for camera in CAMERAS:
        file = folder / f"x_cam{camera}.mat"
        write_cells(file, cells, version=version if file == path else "5")
    valid = path.read_bytes()
    assert len(read_embeddings(folder).features)

    def check(content: bytes) -> None:
        path.write_bytes(content)
        embeddings, error = outcome(lambda: read_embeddings(folder))
        assert error is None or str(folder) in str(error)
        if embeddings is not None:
            _score(embeddings)

    fuzz(files_like(valid, words=[b"\x0e\x00\x00\x00", b"\x89HDF", b"TREE", b"HEAP", b"SNOD"]), check)


def test_hdf5_of_any_content_is_read_or_refused(tmp_path, fuzz, refusing):
    path = tmp_path / "rand_perm_cam.mat"
    arrays = hnp.scalar_dtypes().flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_side=4)))

    def check(array) -> None:
        with h5py.File(path, "w", userblock_size=512) as file:
            try:
                file["rand_perm_cam"] = array
            except TypeError:  # what HDF5 does not have
                file["rand_perm_cam"] = "text"
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        assert refusing(path, lambda: read_official_permutations(path)) is None

    fuzz(arrays, check)
