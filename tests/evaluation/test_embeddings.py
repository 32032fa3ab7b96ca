"""Embedding files of every kind: what is read, what is refused, and how features are made ready for ranking."""

from __future__ import annotations

import json
import re
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.io import savemat

from harness.errors import DataError, ProtocolError
from harness.evaluation import evaluate, protocol, read_official_identities
from harness.evaluation.embeddings import ranked_features, read_embeddings
from harness.evaluation.official import SYSU_TEST_IDENTITIES

RULES = protocol("sysu-mm01/all/single/S/v1")


@pytest.fixture
def toy(synthetic):
    """The SYSU toy as the arrays of an embedding file."""
    identity, camera, number = synthetic.images_of(synthetic.sysu_toy_counts())
    paths = [f"cam{c}/{i:04d}/{k:04d}.jpg" for c, i, k in zip(camera, identity, number, strict=True)]
    features = synthetic.synthetic_features(identity, camera, number, dims=6)
    return {"features": features, "identities": identity, "cameras": camera, "paths": np.array(paths)}


@pytest.fixture
def written(tmp_path):
    """Writes arrays to an .npz file in a folder with a space."""

    def write(arrays):
        folder = tmp_path / "my features"
        folder.mkdir(exist_ok=True)
        np.savez(folder / "toy.npz", **arrays)
        return folder / "toy.npz"

    return write


def scored(path):
    embeddings = read_embeddings(path)
    features, _ = ranked_features(embeddings, distance="cosine")
    return evaluate(features, embeddings.test_set, RULES)


def test_an_npz_file_gives_the_official_figures(toy, written):
    assert scored(written(toy)).mean("mAP") == pytest.approx(0.560682, abs=6e-7)


def test_the_order_of_the_rows_does_not_matter_where_there_are_paths(toy, written):
    expected = scored(written(toy)).figures()
    shuffled = np.random.default_rng(0).permutation(len(toy["paths"]))
    assert scored(written({name: values[shuffled] for name, values in toy.items()})).figures() == expected


def test_without_paths_the_rows_are_taken_in_their_order_and_the_note_says_so(toy, written):
    expected = scored(written(toy)).figures()
    path = written({name: values for name, values in toy.items() if name != "paths"})
    assert scored(path).figures() == expected
    assert "order of the rows" in read_embeddings(path).notes[0]


def test_a_safetensors_file_with_paths_in_its_metadata(toy, tmp_path, written):
    tensors = {name: np.ascontiguousarray(values) for name, values in toy.items() if name != "paths"}
    save_file(tensors, tmp_path / "toy.safetensors", metadata={"paths": json.dumps(toy["paths"].tolist())})
    assert scored(tmp_path / "toy.safetensors").figures() == scored(written(toy)).figures()


def test_other_usual_names_and_whole_numbers_as_floats_are_understood(toy, written):
    renamed = {
        "feature": toy["features"],
        "ids": toy["identities"].astype(np.float64),
        "cams": toy["cameras"].astype(np.int8),
        "names": toy["paths"].astype(bytes),
    }
    assert scored(written(renamed)).figures() == scored(written(toy)).figures()


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_the_official_cells_give_the_figures_of_the_same_features_in_an_npz_file(toy, tmp_path, written, version):
    # Cells are numbered by identity; the toy's identities are renamed to the first seven test identities.
    renamed = np.array(SYSU_TEST_IDENTITIES)[np.unique(toy["identities"], return_inverse=True)[1]]
    for camera in range(1, 7):
        cells = [toy["features"][(renamed == identity) & (toy["cameras"] == camera)] for identity in range(1, 40)]
        write_cells(tmp_path / f"feat_toy_cam{camera}.mat", cells, version=version)
    expected = scored(written({**toy, "identities": renamed})).figures()
    assert scored(tmp_path).figures() == expected
    assert scored(tmp_path / "feat_toy").figures() == expected


def write_cells(path, cells, *, version):
    if version == "5":
        column = np.empty((len(cells), 1), dtype=object)
        column[:, 0] = [cell if len(cell) else np.empty((0, 0)) for cell in cells]
        savemat(path, {"feature": column})
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        references = np.empty((1, len(cells)), dtype=h5py.ref_dtype)
        for number, cell in enumerate(cells):
            if len(cell):
                stored = file.create_dataset(f"#refs#/{number}", data=cell.T)
            else:
                stored = file.create_dataset(f"#refs#/{number}", data=np.zeros(2, dtype=np.uint64))
                stored.attrs["MATLAB_empty"] = np.uint8(1)
            references[0, number] = stored.ref
        file.create_dataset("feature", data=references, dtype=h5py.ref_dtype)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def test_the_published_test_identities_are_those_of_the_official_file(splits):
    assert read_official_identities(splits / "test_id.mat") == SYSU_TEST_IDENTITIES


def test_the_official_result_has_one_cmc_entry_per_gallery_identity(splits):
    with h5py.File(splits / "result_deep_zero_padding_all_search_1shot.mat") as file:
        assert file["performance/cmc_all"].shape == (len(SYSU_TEST_IDENTITIES), 10)
        mean = np.array(file["performance/cmc_all"]).mean(axis=1)[[0, 4, 9, 19]]
    np.testing.assert_allclose(100 * mean, [16.7052, 42.4323, 58.4617, 76.1215], atol=6e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("features"), r"no `features` \(it has `cameras`, `identities`, `paths`\)"),
        (lambda t: t.update(identities=t["identities"][1:]), "`identities` has 66 entries for 67 feature rows"),
        (lambda t: t.update(paths=np.r_[t["paths"][:1], t["paths"][:-1]]), "names 1 images more than once.*cam1/0001"),
        (lambda t: t.update(paths=t["paths"].astype(object)), "dtype=str"),
        (lambda t: t.update(features=t["features"].astype(int)), "floating-point matrix"),
        (lambda t: t.update(features=t["features"][0]), "floating-point matrix"),
        (lambda t: t.update(cameras=t["cameras"] + 0.5), "whole number per image"),
        (lambda t: t.update(features_mirrored=t["features"][:, 1:]), "different widths"),
        (lambda t: t.update(features_mirrored=t["features"][1:]), "has 66 entries"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_together_is_refused(toy, written, change, message):
    change(toy)
    with pytest.raises(DataError, match=message):
        read_embeddings(written(toy))


def test_negative_identities_are_refused(toy, written):
    with pytest.raises(ProtocolError, match="no negative number"):
        read_embeddings(written({**toy, "identities": toy["identities"] - 5}))


def test_files_that_are_missing_damaged_or_of_another_kind_are_refused(toy, written, tmp_path):
    with pytest.raises(DataError, match="no embedding file"):
        read_embeddings(tmp_path / "nothing.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(written(toy).read_bytes()[:500])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
        read_embeddings(cut)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match="cannot be read as a safetensors"):
        read_embeddings(cut)
    other = tmp_path / "features.csv"
    other.write_text("1,2")
    with pytest.raises(DataError, match="kind that is not read"):
        read_embeddings(other)


def test_official_cells_that_are_incomplete_or_several_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds none"):
        read_embeddings(tmp_path)
    cells = [np.eye(2)] * 6
    for camera in range(1, 6):
        write_cells(tmp_path / f"a_cam{camera}.mat", cells, version="5")
    with pytest.raises(DataError, match=r"lacks cameras \[6\]"):
        read_embeddings(tmp_path)
    write_cells(tmp_path / "a_cam6.mat", cells[:5], version="5")
    write_cells(tmp_path / "b_cam1.mat", cells, version="5")
    with pytest.raises(DataError, match="several feature sets"):
        read_embeddings(tmp_path)
    assert len(read_embeddings(tmp_path / "a").features) == 10
    savemat(tmp_path / "a_cam1.mat", {"feature": np.eye(3)})
    with pytest.raises(DataError, match="a cell per identity"):
        read_embeddings(tmp_path / "a")
    (tmp_path / "a_cam1.mat").write_bytes(b"nonsense" * 40)
    with pytest.raises(DataError, match="cannot be read as a MATLAB"):
        read_embeddings(tmp_path / "a")


class TestRankedFeatures:
    def test_rows_are_normalised_unless_they_are_unit_rows(self, toy, written):
        embeddings = read_embeddings(written({**toy, "features": 3 * toy["features"]}))
        features, how = ranked_features(embeddings, distance="cosine")
        np.testing.assert_allclose(features, toy["features"], atol=1e-15)
        assert "L2-normalised here" in how
        unit = read_embeddings(written({**toy, "features": toy["features"].astype(np.float32)}))
        features, how = ranked_features(unit, distance="cosine")
        assert features is unit.features
        assert "unit length as given" in how

    def test_mirror_images_are_averaged_after_each_was_normalised(self, toy, written):
        mirrored = np.roll(toy["features"], 1, axis=1) * 5
        embeddings = read_embeddings(written({**toy, "features_mirrored": mirrored}))
        features, how = ranked_features(embeddings, distance="cosine")
        mean = (toy["features"] + mirrored / 5) / 2
        np.testing.assert_allclose(features, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-12)
        assert "mirror image" in how
        plain, how = ranked_features(embeddings, distance="cosine", flip=False)
        assert plain is embeddings.features
        assert "no flip" in how

    def test_what_cannot_be_averaged_or_normalised_is_refused(self, toy, written):
        embeddings = read_embeddings(written(toy))
        with pytest.raises(DataError, match="no `features_mirrored`"):
            ranked_features(embeddings, distance="cosine", flip=True)
        mirrored = read_embeddings(written({**toy, "features_mirrored": toy["features"]}))
        with pytest.raises(DataError, match="--no-flip"):
            ranked_features(mirrored, distance="euclidean")
        toy["features"][3] = 0
        with pytest.raises(DataError, match="row 3 is zero"):
            ranked_features(read_embeddings(written(toy)), distance="cosine")
        toy["features"][5, 1] = np.inf
        with pytest.raises(DataError, match=r"1 of 67 feature rows.*row 5"):
            ranked_features(read_embeddings(written(toy)), distance="cosine")

    def test_the_euclidean_distance_takes_features_as_they_are(self, toy, written):
        embeddings = read_embeddings(written({**toy, "features": 3 * toy["features"]}))
        features, how = ranked_features(embeddings, distance="euclidean")
        assert features is embeddings.features
        assert how.startswith("Euclidean")


class TestHostileFiles:
    """What damaged or made-up files hold, found by the fuzz tests or thought of; each is refused by the file's name."""

    def refusal(self, path, error=DataError) -> str:
        with pytest.raises(error) as caught:
            read_embeddings(path)
        assert path.name in str(caught.value)
        assert len(str(caught.value)) < 1000
        return str(caught.value)

    def test_an_archive_that_unpacks_to_far_more_than_its_size(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", features=np.zeros((20 << 10, 1 << 10), dtype=np.float32))
        assert (tmp_path / "a.npz").stat().st_size < 200_000
        assert "unpacks to 83,886,208 bytes, far more than its size" in self.refusal(tmp_path / "a.npz")

    def test_an_archive_whose_directory_says_less_than_it_unpacks_to(self, toy, written):
        path = written({name: values for name, values in toy.items() if name != "paths"})
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo("features.npy").file_size
        content = path.read_bytes()
        directory = content.index(b"PK\x01\x02")
        path.write_bytes(
            content[:directory] + content[directory:].replace(size.to_bytes(4, "little"), (200).to_bytes(4, "little"))
        )
        assert "Bad CRC" in self.refusal(path)

    @pytest.mark.parametrize("shape", ["(67, 99999999999)", "(99999999999, 99999999999)"])
    def test_an_array_whose_header_claims_more_than_follows(self, toy, tmp_path, shape):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + toy["features"].tobytes()
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("features.npy", member)
        assert "`features` claims" in self.refusal(tmp_path / "a.npz")

    def test_an_array_of_objects_is_not_unpickled(self, toy, written, tmp_path):
        class Trap:
            def __reduce__(self):
                return (tmp_path / "trapped").touch, ()

        for name in ("features", "identities", "paths"):
            path = written({**toy, name: np.array([Trap()] * 67, dtype=object)})
            assert "objects, which could run code" in self.refusal(path)
        assert not (tmp_path / "trapped").exists()

    def test_arrays_that_are_not_asked_for_are_not_read(self, toy, written, tmp_path):
        path = written({**toy, "notes": np.array([{"a": 1}], dtype=object)})
        assert len(read_embeddings(path).features) == 67

    def test_a_name_that_is_there_twice(self, toy, written):
        path = written(toy)
        with (
            pytest.warns(UserWarning, match="Duplicate"),
            zipfile.ZipFile(path, "a") as archive,
            archive.open("features.npy", "w") as member,
        ):
            np.lib.format.write_array(member, toy["features"])
        assert "holds `features` twice" in self.refusal(path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("identities", np.array(3), "`identities` has no entries for 67 feature rows"),
            ("paths", np.array("a.jpg"), "expected one text per image"),
            ("cameras", np.full(67, np.inf), "holds inf"),
            ("cameras", np.full(67, np.nan), "one whole number per image"),
            ("identities", np.full(67, 1e300), "holds 1e.300"),
            ("identities", np.full(67, 2**63, dtype=np.uint64), "holds 9223372036854775808"),
            ("features", np.ones((67, 2), dtype=np.longdouble), "floating-point matrix"),
            ("features", np.float64(3), "floating-point matrix"),
            ("paths", np.frombuffer(b"\xff\xff\xff\xff" * 67, dtype="<U1"), "something other than text"),
            ("paths", np.frombuffer(b"a\0\0\0a\0\xff\xff" * 67, dtype="<U2"), "something other than text"),
            ("paths", np.frombuffer(b"\x7f\0\0a\0\0\0a" * 67, dtype=">U2"), "something other than text"),
            ("paths", np.array([b"\xff\xfe%d" % row for row in range(67)]), "something other than text"),
            ("paths", np.full(67, "a\x1b[2J"), r"the first is a\\x1b\[2J;"),
        ],
    )
    def test_arrays_of_another_kind(self, toy, written, name, value, message):
        assert re.search(message, self.refusal(written({**toy, name: value})))

    def test_labels_in_half_precision_are_whole_numbers_too(self, toy, written):
        path = written({**toy, "identities": toy["identities"].astype(np.float16)})
        assert np.array_equal(read_embeddings(path).test_set.identity, toy["identities"])

    def test_negative_labels_name_the_file(self, toy, written):
        path = written({**toy, "cameras": -toy["cameras"]})
        assert "no negative number" in self.refusal(path, ProtocolError)

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"harness": "[]"}, "not those of a run"),
            ({"harness": "3"}, "not those of a run"),
            ({"harness": '{"protocol": 5}'}, "not those of a run"),
            ({"harness": "[" * 100_000}, "nested more than"),
            ({"harness": '{"paths": [], "paths": []}'}, "there twice"),
            ({"paths": '"a.jpg"'}, "no list of texts"),
            ({"paths": '["a.jpg", 3]'}, "no list of texts"),
            ({"paths": '[["a.jpg"], "b"]'}, "no list of texts"),
            ({"paths": '["a.jpg"]'}, "`paths` has 1 entries for 67 feature rows"),
            ({"paths": '["\\ud800"]'}, "no character of Unicode"),
        ],
    )
    def test_metadata_that_are_not_those_of_embeddings(self, toy, tmp_path, metadata, message):
        tensors = {name: np.ascontiguousarray(values) for name, values in toy.items() if name != "paths"}
        save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
        assert message in self.refusal(tmp_path / "a.safetensors")

    def test_a_tensor_that_claims_more_than_the_file_holds(self, tmp_path):
        header = json.dumps(
            {"features": {"dtype": "F64", "shape": [1 << 40, 2], "data_offsets": [0, 1 << 44]}}
        ).encode()
        (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
        assert "cannot be read as a safetensors" in self.refusal(tmp_path / "a.safetensors")
        (tmp_path / "a.safetensors").write_bytes((2**63).to_bytes(8, "little") + header)
        assert "cannot be read as a safetensors" in self.refusal(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a_cam1.mat"])
    def test_a_file_larger_than_any_features(self, tmp_path, name):
        for camera in range(2, 7):
            (tmp_path / f"a_cam{camera}.mat").touch()
        with (tmp_path / name).open("wb") as file:
            file.truncate(9 << 30)
        with pytest.raises(DataError, match="9,663,676,416 bytes, and at most 8,589,934,592 are read"):
            read_embeddings(tmp_path / "a" if name.endswith(".mat") else tmp_path / name)

    def test_a_message_of_a_library_is_cut(self, toy, written):
        path = written(toy)
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x0c\x00\x14\x00features.npy", b"\xff\x0f\x14\x00features.npy", 1))
        self.refusal(path)
