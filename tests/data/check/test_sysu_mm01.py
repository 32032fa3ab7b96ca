"""The check of a SYSU-MM01 tree."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.check import check_sysu_mm01, format_check
from harness.errors import DataError
from tests.data.trees import write_sysu_mm01


@pytest.fixture
def tree(tmp_path):
    return write_sysu_mm01(tmp_path / "SYSU-MM01")


def test_a_sound_tree_is_counted_and_accepted(tree):
    steps = []
    report = check_sysu_mm01(tree, progress=lambda done, total: steps.append((done, total)))
    assert report.ok
    assert report.counts["train", 3].images == 6
    assert report.counts["train", 3].identities == 3
    assert report.counts["train + val", 3].images == 8
    assert report.counts["train + val", 3].identities == 4
    assert report.counts["test", 6].images == 4
    assert steps[-1] == (72, 72)
    text = format_check(report)
    assert "6 (3)" in text
    assert "Verdict: usable" in text


def test_damaged_images_strays_and_problems_are_named(tree):
    whole = (tree / "cam1" / "0001" / "0001.jpg").read_bytes()
    (tree / "cam1" / "0001" / "0001.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "cam4" / "0003" / "0002.jpg").write_text("not an image")
    (tree / "cam5" / "Thumbs.db").write_text("x")
    (tree / "cam5" / "0003" / "readme.txt").write_text("x")
    (tree / "exp" / "train_id.txt").write_text("1,2,5,77")
    report = check_sysu_mm01(tree)
    assert not report.ok
    assert [path for path, _ in report.damaged] == ["cam1/0001/0001.jpg", "cam4/0003/0002.jpg"]
    assert report.strays == ("cam5/0003/readme.txt", "cam5/Thumbs.db")
    assert any("0077" in problem for problem in report.problems)
    text = format_check(report)
    for name in ("cam1/0001/0001.jpg", "Thumbs.db", "0077", "NOT usable"):
        assert name in text


def test_a_missing_list_a_missing_camera_and_overlapping_lists_are_problems(tmp_path):
    tree = write_sysu_mm01(tmp_path / "part", cameras=(1, 2, 3, 4, 6))
    (tree / "exp" / "val_id.txt").unlink()
    (tree / "exp" / "test_id.txt").write_text("3,5")
    problems = check_sysu_mm01(tree).problems
    assert len(problems) == 3
    for part in ("val_id.txt is missing", "Identity 5 is listed both", str(tree / "cam5")):
        assert any(part in problem for problem in problems)
    assert ("train + val", 1) not in check_sysu_mm01(tree).counts


def test_a_tree_that_is_not_the_published_one_is_told_in_a_few_sentences_and_is_no_problem(tree):
    report = check_sysu_mm01(tree)
    assert report.ok
    assert len(report.published) == 6
    assert "train_id.txt: 3 identities, published 296" in report.published
    assert "test_id.txt: 2 identities, published 96" in report.published
    assert (
        "every camera: 16 visible and 8 infrared test images of 2 identities, published 6775 and 3803 of 96"
        in format_check(report)
    )


def test_counts_are_compared_by_camera_where_some_agree(tree):
    lists = {"train": range(1, 297), "val": range(297, 396), "test": range(396, 492)}
    for name, identities in lists.items():
        (tree / "exp" / f"{name}_id.txt").write_text(",".join(map(str, identities)))
    published = check_sysu_mm01(tree).published
    assert not any("_id.txt" in sentence for sentence in published)
    assert "cam3: 0 val images, published 1980" in published
    assert not any(sentence.startswith("cam1") for sentence in published)


def test_the_identities_of_train_and_val_together_are_compared_where_each_alone_is_as_published(tree, monkeypatch):
    def differences(manifest, *, part):
        return ("cam3: too few identities",) if part == "train + val" else ()

    monkeypatch.setattr("harness.data.check.sysu_mm01.sysu_mm01_differences", differences)
    assert "cam3: too few identities" in check_sysu_mm01(tree).published


def test_whether_the_official_permutations_are_there_is_said(tree):
    assert "is not there (not required)" in format_check(check_sysu_mm01(tree))
    (tree / "exp" / "rand_perm_cam.mat").write_bytes(np.zeros(1).tobytes())
    report = check_sysu_mm01(tree)
    assert "drawn by, is there." in format_check(report)
    assert report.ok


def test_another_tree_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not look like SYSU-MM01"):
        check_sysu_mm01(tmp_path)
