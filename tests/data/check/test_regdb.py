"""The check of a RegDB tree."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.data.check import check_regdb, format_check
from harness.data.rendered import write_rendered
from harness.errors import DataError
from tests.data.trees import write_regdb


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("check") / "RegDB"
    write_rendered(root, layout="regdb", size="tiny", seed=2)
    return root


@pytest.fixture
def tree(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_sound_tree_is_counted_over_ten_trials_and_every_image_is_decoded_once(whole):
    steps = []
    report = check_regdb(whole, progress=lambda done, total: steps.append((done, total)))
    assert report.ok
    assert not report.strays
    assert len(report.counts) == 40
    for cell in report.counts.values():
        assert (cell.images, cell.identities) == (18, 6)
    assert steps == [(done, 72) for done in range(1, 73)]
    text = format_check(report)
    assert "|      10 |          18 (6) |" in text
    assert "A rendered dataset: size tiny, seed 2." in text
    assert "Verdict: usable" in text


def test_differences_from_the_published_dataset_are_told_once_for_all_trials(whole):
    assert check_regdb(whole).published == (
        "every camera: 18 visible and 18 infrared train images of 6 identities, published 2060 and 2060 of 206 "
        "(all trials)",
        "every camera: 18 visible and 18 infrared test images of 6 identities, published 2060 and 2060 of 206 "
        "(all trials)",
    )


def test_a_tree_of_the_published_counts_shows_no_difference(tmp_path):
    """Lists of the published length; the images are not on disk, which is another matter."""
    for folder in ("Visible", "Thermal", "idx"):
        (tmp_path / folder).mkdir()
    for trial in range(1, 11):
        for split, first in (("train", 0), ("test", 206)):
            for modality in ("visible", "thermal"):
                lines = [
                    f"{modality.title()}/{first + label}/{number}.bmp {label}\n"
                    for label in range(206)
                    for number in range(10)
                ]
                (tmp_path / "idx" / f"{split}_{modality}_{trial}.txt").write_text("".join(lines))
    report = check_regdb(tmp_path)
    assert report.published == ()
    assert "all counts equal the published RegDB" in format_check(report)
    assert len(report.problems) == 1
    assert "8240 of 8240 listed images are not in" in report.problems[0]


def test_damaged_images_and_strays_are_named(tree):
    file = tree / "Thermal" / "3" / "t_00002_3.bmp"
    file.write_bytes(file.read_bytes()[:100])
    (tree / "Visible" / "4" / "v_00001_4.bmp").write_bytes(b"")
    (tree / "Visible" / "Thumbs.db").write_text("x")
    shutil.copy(tree / "Visible" / "1" / "v_00001_1.bmp", tree / "Visible" / "1" / "v_00009_1.bmp")
    report = check_regdb(tree)
    assert not report.ok
    assert [path for path, _ in report.damaged] == ["Thermal/3/t_00002_3.bmp", "Visible/4/v_00001_4.bmp"]
    assert report.strays == ("Visible/1/v_00009_1.bmp", "Visible/Thumbs.db")
    assert not report.problems


def test_every_problem_of_every_trial_is_named(tree):
    idx = tree / "idx"
    (idx / "test_thermal_4.txt").unlink()
    (idx / "train_visible_9.txt").write_text("Visible/1/v_00001_1.bmp\n")
    with (idx / "train_visible_7.txt").open("a") as file:
        file.write((idx / "train_visible_7.txt").read_text().splitlines()[0])
    (idx / "test_thermal_5.txt").write_text((idx / "test_thermal_5.txt").read_text().replace(" 5\n", " 6\n"))
    shutil.copy(idx / "train_visible_6.txt", idx / "test_visible_6.txt")
    (tree / "Visible" / "3" / "v_00001_3.bmp").unlink()
    report = check_regdb(tree)
    expected = (
        "trial 4: test_thermal_4.txt not found",
        "train_visible_9.txt, line 1",
        "train_visible_7.txt lists the image",
        "The test lists of trial 5",
        "Trial 6 of",
        "1 of 72 listed images are not in",
    )
    assert len(report.problems) == len(expected)
    for part in expected:
        assert sum(part in problem for problem in report.problems) == 1
    assert (4, "test thermal") not in report.counts
    assert report.counts[7, "train visible"].images == 19
    assert "NOT usable" in format_check(report)


def test_trials_without_lists_are_problems(tmp_path):
    problems = check_regdb(write_regdb(tmp_path / "two")).problems
    assert len(problems) == 8
    assert all("not found" in problem for problem in problems)


def test_another_tree_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not look like RegDB"):
        check_regdb(tmp_path)
