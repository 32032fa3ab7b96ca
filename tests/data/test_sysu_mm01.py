"""Reading the SYSU-MM01 tree, on small trees written by the test itself."""

from __future__ import annotations

import os

import numpy as np
import pytest

from harness.data.manifest import Manifest, fingerprint
from harness.data.sysu_mm01 import read_identities, read_sysu_mm01
from harness.errors import DataError
from tests.data.trees import TEST, TRAIN, VAL
from tests.data.trees import write_sysu_mm01 as write_tree


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "SYSU-MM01")


def test_training_holds_train_and_val_identities_of_every_camera(tree):
    manifest = read_sysu_mm01(tree, split="train")
    assert set(manifest.identity.tolist()) == {*TRAIN, *VAL}
    assert len(manifest) == 4 * 6 * 2
    for path, camera, identity, modality in zip(
        manifest.paths, manifest.camera, manifest.identity, manifest.modality, strict=True
    ):
        assert path.startswith(f"cam{camera}/{identity:04d}/")
        assert modality == (1 if camera in (3, 6) else 0)
        assert (tree / path).is_file()


def test_validation_identities_can_be_left_out(tree):
    assert set(read_sysu_mm01(tree, split="train", include_val=False).identity.tolist()) == set(TRAIN)


def test_training_order_is_visible_then_infrared(tree):
    modality = read_sysu_mm01(tree, split="train").modality
    assert (np.diff(modality) >= 0).all()
    assert modality[0] == 0
    assert modality[-1] == 1


def test_training_order_is_the_same_each_time_and_on_a_copy_elsewhere(tree, tmp_path):
    copy = write_tree(tmp_path / "elsewhere")
    assert read_sysu_mm01(tree, split="train").paths == read_sysu_mm01(tree, split="train").paths
    assert read_sysu_mm01(tree, split="train").paths == read_sysu_mm01(copy, split="train").paths


def test_training_order_says_nothing_about_identities(tmp_path):
    manifest = read_sysu_mm01(write_tree(tmp_path / "big", images=40), split="train")
    identity = manifest.identity[manifest.modality == 0]
    neighbours_agree = (identity[1:] == identity[:-1]).mean()
    assert abs(neighbours_agree - 1 / 4) < 4 * np.sqrt(3 / 16 / len(identity))
    assert abs(np.corrcoef(identity, np.arange(len(identity)))[0, 1]) < 4 / np.sqrt(len(identity))


def test_test_split_is_sorted_by_camera_identity_and_file_name(tree):
    manifest = read_sysu_mm01(tree, split="test")
    keys = list(zip(manifest.camera.tolist(), manifest.identity.tolist(), manifest.paths, strict=True))
    assert keys == sorted(keys)
    assert set(manifest.identity.tolist()) == set(TEST)


def test_an_identity_may_be_absent_from_a_camera(tree):
    for file in (tree / "cam2" / "0001").iterdir():
        file.unlink()
    (tree / "cam2" / "0001").rmdir()
    manifest = read_sysu_mm01(tree, split="train")
    assert not ((manifest.camera == 2) & (manifest.identity == 1)).any()


def test_files_that_are_not_images_of_the_layout_are_left_out(tree):
    for name in ("Thumbs.db", "._0001.jpg", "notes.txt"):
        (tree / "cam1" / "0001" / name).write_text("x")
    assert len(read_sysu_mm01(tree, split="train")) == 48


def test_the_fingerprint_depends_on_paths_and_sizes_but_not_on_place_or_order(tree, tmp_path):
    manifest = read_sysu_mm01(tree, split="train")
    assert fingerprint(manifest) == fingerprint(manifest.take(np.arange(len(manifest))[::-1]))
    copy = read_sysu_mm01(write_tree(tmp_path / "elsewhere"), split="train")
    assert fingerprint(manifest) == fingerprint(copy)
    (copy.root / copy.paths[0]).write_bytes(b"another size")
    assert fingerprint(manifest) != fingerprint(copy)
    assert fingerprint(manifest) != fingerprint(manifest.take([0, 1]))


def test_a_manifest_refuses_columns_that_do_not_fit(tmp_path):
    one = np.zeros(1, np.int64)
    with pytest.raises(DataError, match="expected int64 \\[2\\]"):
        Manifest(root=tmp_path, paths=("a", "b"), modality=one, camera=one, identity=one)
    with pytest.raises(DataError, match="other than 0"):
        Manifest(root=tmp_path, paths=("a",), modality=one + 2, camera=one, identity=one)


@pytest.mark.parametrize(
    "raw",
    [b"1,2,5\n", b"\xef\xbb\xbf1,2,5\r\n", b"1, 2 ,5,\n", b"1,2,5, \r\nanything below\n", b" 01,2,0005"],
)
def test_id_files_are_read_leniently_where_the_meaning_is_clear(tree, raw):
    (tree / "exp" / "train_id.txt").write_bytes(raw)
    assert read_identities(tree, "train") == (1, 2, 5)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"1,two,5\n", "entry 2 of the first line is 'two'"),
        (b"1,,5\n", "entry 2 of the first line is ''"),
        (b"1,../../etc\n", "entry 2"),
        (b"1,-4\n", "entry 2 of the first line is '-4'"),
        (b"1,2.0\n", "entry 2 of the first line is '2.0'"),
        ("1,٣\n".encode(), "entry 2"),
        (b"1,0\n", "outside 1..9999"),
        (b"1,10000\n", "outside 1..9999"),
        (b"1," + b"9" * 5000, "outside 1..9999"),
        (b"", "lists no identity"),
        (b"\n1,2\n", "lists no identity"),
        (b"1,2,1\n", "identity 1 twice"),
        (b"\xff\xfe1\x00", "not text"),
    ],
)
def test_an_id_file_with_garbage_is_refused_by_name_and_place(tree, raw, message):
    (tree / "exp" / "train_id.txt").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_sysu_mm01(tree, split="train")
    assert "train_id.txt" in str(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_id_file_is_named(tree):
    (tree / "exp" / "val_id.txt").unlink()
    with pytest.raises(DataError, match=r"Cannot read the identity list .*val_id\.txt: No such file"):
        read_sysu_mm01(tree, split="train")
    assert len(read_sysu_mm01(tree, split="train", include_val=False)) == 36


def test_training_and_test_identities_must_be_disjoint(tree):
    (tree / "exp" / "test_id.txt").write_text("3,5")
    with pytest.raises(DataError, match=r"Identity 5 is listed both in train_id\.txt and in test_id\.txt"):
        read_sysu_mm01(tree, split="train")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Expected a folder with cam1"):
        read_sysu_mm01(tmp_path / "nowhere", split="train")


def test_a_file_is_not_a_dataset(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file"):
        read_sysu_mm01(tmp_path / "data.zip", split="train")


def test_an_unrelated_folder_is_refused_and_the_dataset_inside_it_is_pointed_out(tree):
    with pytest.raises(DataError, match=r"does not look like SYSU-MM01.*Did you mean .*SYSU-MM01\?"):
        read_sysu_mm01(tree.parent, split="train")


def test_a_tree_without_exp_is_refused(tmp_path):
    (tmp_path / "cam1").mkdir()
    with pytest.raises(DataError, match="no `exp` folder"):
        read_sysu_mm01(tmp_path, split="train")


def test_a_tree_without_cameras_is_refused(tmp_path):
    (tmp_path / "exp").mkdir()
    with pytest.raises(DataError, match=r"no camera folder: looked for cam1 \.\. cam6"):
        read_sysu_mm01(tmp_path, split="train")


@pytest.mark.parametrize("folder", ["ir_modify", "rgb_modify", "bounding_box_train"])
def test_a_tree_prepared_for_older_code_is_recognised(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=f"{folder}.*original SYSU-MM01 tree"):
        read_sysu_mm01(tmp_path, split="train")


@pytest.mark.parametrize(("cameras", "lost"), [((1, 2, 4, 5), "infrared"), ((3, 6), "visible")])
def test_a_tree_of_one_modality_is_refused(tmp_path, cameras, lost):
    tree = write_tree(tmp_path / "half", cameras=cameras)
    with pytest.raises(DataError, match=f"one modality only: no {lost} camera"):
        read_sysu_mm01(tree, split="train")


def test_missing_cameras_are_listed_with_where_they_were_looked_for(tmp_path):
    tree = write_tree(tmp_path / "half", cameras=(1, 3, 4, 6))
    with pytest.raises(DataError) as caught:
        read_sysu_mm01(tree, split="train")
    assert str(tree / "cam2") in str(caught.value)
    assert str(tree / "cam5") in str(caught.value)


def test_camera_folders_without_images_of_one_modality_are_refused(tree):
    for camera in (3, 6):
        for file in (tree / f"cam{camera}").rglob("*.jpg"):
            file.unlink()
    with pytest.raises(DataError, match="one modality only: no infrared image"):
        read_sysu_mm01(tree, split="train")


def test_listed_identities_without_any_image_are_named(tree):
    (tree / "exp" / "train_id.txt").write_text("1,2,5,77,78")
    with pytest.raises(DataError, match=r"2 identities of train_id\.txt and val_id\.txt have no image.*0077, 0078"):
        read_sysu_mm01(tree, split="train")


def test_an_id_file_larger_than_any_is_refused_before_it_is_read(tree):
    with (tree / "exp" / "train_id.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"train_id\.txt is larger than 1,048,576 bytes"):
        read_sysu_mm01(tree, split="train")


@pytest.mark.parametrize("entry", ["../1", "/1", "..", "C:1", "1/../2", "~", "1\0", "1\x1b[2J"])
def test_an_entry_that_would_leave_the_tree_is_refused_by_its_place(tree, entry):
    (tree / "exp" / "train_id.txt").write_text(f"1,{entry},5")
    with pytest.raises(DataError, match=r"train_id\.txt: entry 2 of the first line is") as caught:
        read_sysu_mm01(tree, split="train")
    assert str(caught.value).isprintable()


def test_links_in_the_tree_are_followed_wherever_they_point(tree, tmp_path):
    (tree / "cam3").rename(tmp_path / "elsewhere")
    (tree / "cam3").symlink_to(tmp_path / "elsewhere")
    assert (read_sysu_mm01(tree, split="train").camera == 3).any()


def test_an_image_whose_name_is_no_utf_8_is_named(tree):
    try:
        (tree / "cam1" / "0001" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match=r"0001 holds an image whose name is not UTF-8: \\udcff\.jpg"):
        read_sysu_mm01(tree, split="train")
