"""Reading the RegDB tree, on a small tree written by the test itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data.manifest import training_order
from harness.data.regdb import list_file, read_list, read_regdb
from harness.errors import DataError
from tests.data.trees import REGDB_TRAIN, write_regdb


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_regdb(tmp_path / "Reg DB")


def edit(root: Path, name: str, change: Callable[[str], str]) -> Path:
    file = root / "idx" / f"{name}.txt"
    file.write_text(change(file.read_text()))
    return file


def refusal(root: Path, *, split: str = "train", trial: int = 1) -> str:
    with pytest.raises(DataError) as caught:
        read_regdb(root, split=split, trial=trial)
    assert len(str(caught.value)) < 500
    return str(caught.value)


# well-formed trees


@pytest.mark.parametrize("trial", REGDB_TRAIN)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_holds_the_images_of_its_lists_with_their_labels(tree, split, trial):
    manifest = read_regdb(tree, split=split, trial=trial)
    half = REGDB_TRAIN[trial] if split == "train" else tuple(sorted({1, 2, 3, 4, 5, 6} - set(REGDB_TRAIN[trial])))
    assert len(set(manifest.paths)) == len(manifest) == 12
    for row, path in enumerate(manifest.paths):
        folder, identity, _ = path.split("/")
        assert manifest.modality[row] == (0 if folder == "Visible" else 1)
        assert manifest.camera[row] == (1 if folder == "Visible" else 2)
        assert half[manifest.identity[row]] == int(identity)
        assert manifest.file(row).is_file()


def test_the_training_split_is_in_training_order(tree):
    manifest = read_regdb(tree, split="train", trial=1)
    assert training_order(manifest).tolist() == list(range(12))
    assert manifest.modality.tolist() == [0] * 6 + [1] * 6
    visible = manifest.identity[:6].tolist()
    assert visible != sorted(visible)


def test_the_test_split_is_sorted_by_camera_identity_and_path(tree):
    edit(tree, "test_visible_1", lambda text: "\n".join(reversed(text.split("\n"))))
    manifest = read_regdb(tree, split="test", trial=1)
    keys = list(zip(manifest.camera.tolist(), manifest.identity.tolist(), manifest.paths, strict=True))
    assert keys == sorted(keys)


def test_labels_may_be_any_whole_numbers(tree):
    for modality in ("visible", "thermal"):
        edit(tree, f"train_{modality}_1", lambda text: text.replace(" 2\n", " 411\n"))
    assert set(read_regdb(tree, split="train", trial=1).identity.tolist()) == {0, 1, 411}


# oddities that are clear enough


@pytest.mark.parametrize(
    "write",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "  \t\n").encode(),
        lambda text: (text + "\n\n  \n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("/", "\\").encode(),
        lambda text: text.replace("Visible", "./Visible").encode(),
        lambda text: text.replace("Visible", "Visible/").encode(),
        lambda text: text.replace(" ", "   ").encode(),
        lambda text: text.replace(" ", "\t").encode(),
        lambda text: text.replace(" 2", " 002").encode(),
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "trailing-blanks",
        "blank-lines",
        "no-last-newline",
        "backslashes",
        "dot",
        "double-slash",
        "blanks",
        "tab",
        "zeros",
    ],
)
def test_a_list_with_an_oddity_reads_as_without(tree, write):
    plain = read_regdb(tree, split="train", trial=1)
    file = tree / "idx" / "train_visible_1.txt"
    file.write_bytes(write(file.read_text()))
    odd = read_regdb(tree, split="train", trial=1)
    assert odd.paths == plain.paths
    assert np.array_equal(odd.identity, plain.identity)


def test_paths_may_hold_blanks(tree):
    shutil.move(tree / "Visible" / "2", tree / "Visible" / "the second")
    edit(tree, "train_visible_1", lambda text: text.replace("Visible/2/", "Visible/the second/"))
    paths = read_regdb(tree, split="train", trial=1).paths
    assert "Visible/the second/v1.bmp" in paths


def test_one_split_can_be_read_without_the_lists_of_the_other(tree):
    for modality in ("visible", "thermal"):
        (tree / "idx" / f"test_{modality}_1.txt").unlink()
    assert len(read_regdb(tree, split="train", trial=1)) == 12


def test_folders_that_mix_identities_are_not_taken_for_identities(tmp_path):
    tree = write_regdb(tmp_path / "tree")
    for folder in ("Visible", "Thermal"):
        (tree / folder / "all").mkdir()
        for identity in range(1, 7):
            for file in (tree / folder / str(identity)).iterdir():
                file.rename(tree / folder / "all" / f"{identity}{file.name}")
    for file in (tree / "idx").iterdir():
        file.write_text("".join(_flatten(line) for line in file.read_text().splitlines()))
    assert len(read_regdb(tree, split="train", trial=1)) == 12


def _flatten(line: str) -> str:
    folder, identity, rest = line.split("/")
    return f"{folder}/all/{identity}{rest}\n"


# what is refused


@pytest.mark.parametrize("trial", [0, 11, -1])
def test_there_are_ten_trials(tree, trial):
    assert f"no trial {trial} of RegDB; expected 1 .. 10" in refusal(tree, trial=trial)


def test_a_missing_root_is_named(tmp_path):
    assert "nowhere does not exist. Expected a folder with Visible and Thermal" in refusal(tmp_path / "nowhere")


def test_a_file_is_not_a_dataset(tmp_path):
    (tmp_path / "RegDB.zip").write_bytes(b"PK")
    assert "is a file" in refusal(tmp_path / "RegDB.zip")


def test_an_unrelated_folder_is_refused_and_the_dataset_inside_it_is_pointed_out(tree):
    message = refusal(tree.parent)
    assert "does not look like RegDB" in message
    assert f"Did you mean {tree}?" in message


@pytest.mark.parametrize("folder", ["Visible", "Thermal"])
def test_a_tree_of_one_modality_is_refused(tree, folder):
    shutil.rmtree(tree / folder)
    assert f"one modality only: looked for {tree / folder}" in refusal(tree)


@pytest.mark.parametrize("folders", [["idx"], ["idx", "Thermal"], ["Visible", "Thermal"]])
def test_a_part_of_a_tree_is_refused_with_where_the_rest_was_looked_for(tree, folders):
    for folder in folders:
        shutil.rmtree(tree / folder)
    message = refusal(tree)
    assert "only a part of RegDB" in message
    for folder in folders:
        assert str(tree / folder) in message


@pytest.mark.parametrize("inside", [".", "ir_modify/3", "rgb_modify/1/query"])
def test_a_tree_prepared_for_older_code_is_recognised(tmp_path, inside):
    for place in ("ir_modify/3/bounding_box_train", "rgb_modify/1/query"):
        (tmp_path / place).mkdir(parents=True)
    message = refusal(tmp_path / inside)
    assert "prepared for older code" in message or "does not look like RegDB" in message
    if inside != "rgb_modify/1/query":
        assert "Point at the original RegDB tree instead" in message


@pytest.mark.parametrize("modality", ["visible", "thermal"])
def test_a_missing_list_is_named_with_the_trials_that_are_there(tree, modality):
    (tree / "idx" / f"train_{modality}_1.txt").unlink()
    message = refusal(tree)
    assert f"looked for train_{modality}_1.txt" in message
    assert "Trials with all four lists: 2." in message


def test_a_trial_without_any_list_is_refused(tree):
    assert "Trial 7" in refusal(tree, trial=7)
    for file in (tree / "idx").iterdir():
        file.unlink()
    assert "Trials with all four lists: none." in refusal(tree)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Visible/1/v0.bmp", "has no label. Expected a line such as"),
        ("Visible/1/v 0.bmp", "does not end with a label"),
        ("Visible/1/v0.bmp 1.0", "does not end with a label"),
        ("Visible/1/v0.bmp -1", "does not end with a label"),
        ("Visible/1/v0.bmp ٣", "does not end with a label"),
        ("Visible/1/v0.bmp " + "9" * 40, "does not end with a label"),
        ("/Visible/1/v0.bmp 0", "leaves the dataset's folder"),
        ("\\Visible\\1\\v0.bmp 0", "leaves the dataset's folder"),
        ("C:\\RegDB\\Visible\\1\\v0.bmp 0", "leaves the dataset's folder"),
        ("Visible/../../secret.bmp 0", "leaves the dataset's folder"),
        ("Visible\\..\\Thermal\\1\\t0.bmp 0", "leaves the dataset's folder"),
        ("Thermal/1/t0.bmp 0", "is not under `Visible`"),
        ("1/v0.bmp 0", "is not under `Visible`"),
        (". 0", "is not under `Visible`"),
        ("x" * 5000 + " 0", "is not under `Visible`"),
        ("Visible/1/v0\x00.bmp 0", "holds control characters"),
        ("Visible/1/\x1b]0;x\x07v0.bmp 0", "holds control characters"),
        ("Visible/.. /1/v0.bmp", "does not end with a label"),
        ("./../RegDB/Visible/1/v0.bmp 0", "leaves the dataset's folder"),
        ("\\\\server\\share\\Visible\\1\\v0.bmp 0", "leaves the dataset's folder"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_by_file_and_line(tree, line, message):
    file = edit(tree, "train_visible_1", lambda text: f"{text}\n{line}\n")
    found = refusal(tree)
    assert f"{file}, line 8: " in found
    assert message in found


@pytest.mark.parametrize(
    ("raw", "message"), [(b"", "lists no image"), (b"\n \r\n", "lists no image"), (b"\xff\xfe1\x00", "is not text")]
)
def test_a_list_without_content_is_refused(tree, raw, message):
    (tree / "idx" / "train_thermal_1.txt").write_bytes(raw)
    found = refusal(tree)
    assert "train_thermal_1.txt" in found
    assert message in found


def test_a_list_that_cannot_be_read_is_named(tree):
    with pytest.raises(DataError, match=r"Cannot read the list .*train_visible_9\.txt: No such file"):
        read_list(list_file(tree, "train", "visible", 9), modality="visible")


def test_images_that_are_missing_on_disk_are_counted_and_the_first_is_named(tree):
    (tree / "Visible" / "2" / "v1.bmp").unlink()
    (tree / "Visible" / "5" / "v0.bmp").unlink()
    message = refusal(tree)
    assert "2 of 12 listed images are not in" in message
    assert "(the first: Visible/2/v1.bmp)" in message
    assert len(read_regdb(tree, split="test", trial=1)) == 12


def test_a_folder_in_an_images_place_is_missing(tree):
    (tree / "Visible" / "2" / "v1.bmp").unlink()
    (tree / "Visible" / "2" / "v1.bmp").mkdir()
    assert "1 of 12 listed images" in refusal(tree)


@pytest.mark.parametrize("again", ["Visible/1/v0.bmp 0", "Visible/1/v0.bmp 1", "Visible\\1\\.\\v0.bmp 0"])
def test_an_image_that_is_listed_twice_is_refused(tree, again):
    edit(tree, "train_visible_1", lambda text: text + again)
    assert "train_visible_1.txt lists the image Visible/1/v0.bmp twice" in refusal(tree)


def test_the_two_modalities_of_a_split_must_show_the_same_identities(tree):
    edit(tree, "train_thermal_1", lambda text: text.replace(" 2\n", " 3\n"))
    message = refusal(tree)
    assert "hold different identities: 1 are in the visible list only and 1 in the thermal list only" in message
    assert "(the first: 2)" in message


def test_an_image_in_both_splits_is_refused_from_either_side(tree):
    edit(tree, "test_visible_1", lambda text: text + "Visible/1/v0.bmp 0\n")
    for split in ("train", "test"):
        message = refusal(tree, split=split)
        assert "1 images both for training and for testing (the first: Visible/1/v0.bmp)" in message


def test_an_identity_in_both_splits_is_refused_though_its_images_differ(tree):
    shutil.copy(tree / "Visible" / "1" / "v0.bmp", tree / "Visible" / "1" / "v9.bmp")
    edit(tree, "test_visible_1", lambda text: text + "Visible/1/v9.bmp 0\n")
    assert "1 identity folders both for training and for testing (the first: Visible/1)" in refusal(tree)


def test_equal_labels_in_both_splits_are_no_leak(tree):
    train, test = (read_regdb(tree, split=split, trial=1) for split in ("train", "test"))
    assert set(train.identity.tolist()) == set(test.identity.tolist()) == {0, 1, 2}
    assert not set(train.paths) & set(test.paths)


def test_a_list_larger_than_any_is_refused_before_it_is_read(tree):
    with (tree / "idx" / "train_visible_1.txt").open("wb") as file:
        file.truncate(1 << 40)
    assert "train_visible_1.txt is larger than 16,777,216 bytes" in refusal(tree)


@pytest.mark.parametrize("path", ["Visible/" + "x" * 300 + ".bmp", "Visible/" + "x/" * 3000 + "v0.bmp"])
def test_a_path_longer_than_the_system_allows_is_a_missing_image(tree, path):
    edit(tree, "train_visible_1", lambda text: f"{text}{path} 0\n")
    assert "1 of 13 listed images are not in" in refusal(tree)


def test_a_root_longer_than_the_system_allows_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_regdb(tmp_path / ("x" * 300), split="train", trial=1)


def test_links_in_the_tree_are_followed_wherever_they_point(tree, tmp_path):
    (tree / "Thermal").rename(tmp_path / "elsewhere")
    (tree / "Thermal").symlink_to(tmp_path / "elsewhere")
    assert len(read_regdb(tree, split="train", trial=1)) == 12
