"""Telling datasets apart by their folders, and what the reports of all checks have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.check import CheckReport, check_dataset, detect_dataset, format_check
from harness.errors import DataError
from tests.data.trees import write_regdb, write_sysu_mm01


def test_the_two_layouts_are_told_apart(tmp_path):
    assert detect_dataset(write_sysu_mm01(tmp_path / "a")) == "sysu-mm01"
    assert detect_dataset(write_regdb(tmp_path / "b")) == "regdb"
    assert check_dataset(tmp_path / "a").dataset == "SYSU-MM01"
    assert check_dataset(tmp_path / "b").dataset == "RegDB"


@pytest.mark.parametrize(
    ("folders", "dataset"),
    [(["idx", "Visible"], "regdb"), (["idx", "Thermal"], "regdb"), (["cam3"], "sysu-mm01"), (["exp"], "sysu-mm01")],
)
def test_a_part_of_a_layout_is_enough_to_tell(tmp_path, folders, dataset):
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert detect_dataset(tmp_path) == dataset
    with pytest.raises(DataError, match="ooked for"):
        check_dataset(tmp_path)


def test_a_named_dataset_is_not_guessed(tmp_path):
    with pytest.raises(DataError, match="does not look like SYSU-MM01"):
        check_dataset(write_regdb(tmp_path / "b"), dataset="sysu-mm01")


def test_folders_of_both_layouts_need_a_name(tmp_path):
    write_regdb(write_sysu_mm01(tmp_path / "both"))
    with pytest.raises(DataError, match="--dataset"):
        check_dataset(tmp_path / "both")
    assert check_dataset(tmp_path / "both", dataset="sysu-mm01").ok


@pytest.mark.parametrize("write", [write_sysu_mm01, write_regdb])
def test_neither_layout_is_refused_and_a_dataset_inside_is_pointed_out(tmp_path, write):
    inside = write(tmp_path / "inside")
    with pytest.raises(DataError, match="layout of no known dataset") as caught:
        detect_dataset(tmp_path)
    assert f"Did you mean {inside}?" in str(caught.value)


def test_a_tree_prepared_for_older_code_is_recognised(tmp_path):
    (tmp_path / "ir_modify" / "1" / "query").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "ir_modify", tmp_path / "ir_modify" / "1"):
        with pytest.raises(DataError, match="prepared for older code"):
            detect_dataset(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        detect_dataset(tmp_path / "nowhere")


def test_long_lists_are_cut_short():
    strays = tuple(f"stray{number}" for number in range(30))
    report = CheckReport(dataset="RegDB", root=Path("somewhere"), counts={}, table="", strays=strays)
    text = format_check(report, limit=20)
    assert "(ignored) (30):" in text
    assert "stray19" in text
    assert "stray20" not in text
    assert "... and 10 more" in text
    assert report.ok
    assert "all counts equal the published RegDB" in text


@pytest.mark.parametrize("written", ["{}", "not json", "[]"])
def test_a_description_that_says_nothing_is_noted(tmp_path, written):
    root = write_regdb(tmp_path / "b")
    (root / "idx" / "rendered.json").write_text(written)
    assert any("does not say how" in note for note in check_dataset(root).notes)
