"""Datasets as the engine gets them: protocols, permutations, trials, notes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from harness.builtin import RegdbOptions, SysuOptions
from harness.data.datasets import Dataset, regdb, sysu_mm01
from harness.data.rendered import ensure_rendered
from harness.errors import DataError, ProtocolError, SettingsError


@pytest.fixture(scope="session")
def regdb_tree(harness_cache: Path) -> Path:
    return ensure_rendered(size="tiny", seed=0, layout="regdb")


def rules(dataset: Dataset) -> set[str]:
    return {protocol.gallery_rule for protocol in dataset.protocols}


def write_permutations(path: Path, root: Path, *, drop: int = 0) -> None:
    """A permutation file that fits the tree, or one with ``drop`` images fewer per folder."""
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cells = np.empty((20, 1), dtype=object)
        for identity in range(1, 21):
            images = len(list((root / f"cam{camera}" / f"{identity:04d}").glob("*.jpg"))) - drop
            cells[identity - 1, 0] = np.tile(np.arange(1, images + 1), (10, 1)) if images > 0 else np.empty((0, 0))
        cameras[camera - 1, 0] = cells
    savemat(path, {"rand_perm_cam": cameras})


class TestSysu:
    def test_without_permutations_only_seeded_galleries_are_scored_and_the_note_says_why(self, tiny: Path) -> None:
        dataset = sysu_mm01(SysuOptions(), tiny)
        assert rules(dataset) == {"S"}
        assert any("rand_perm_cam.mat" in note and "data.permutations" in note for note in dataset.notes)

    def test_permutations_in_the_tree_are_found(self, tiny_copy: Path) -> None:
        write_permutations(tiny_copy / "exp" / "rand_perm_cam.mat", tiny_copy)
        dataset = sysu_mm01(SysuOptions(), tiny_copy)
        assert rules(dataset) == {"S", "O"}
        assert dataset.protocols[0].gallery_rule == "S"
        assert dataset.permutations is not None

    def test_permutations_may_lie_elsewhere(self, tiny: Path, tmp_path: Path) -> None:
        write_permutations(tmp_path / "perm.mat", tiny)
        assert rules(sysu_mm01(SysuOptions(permutations=tmp_path / "perm.mat"), tiny)) == {"S", "O"}

    def test_a_file_of_another_dataset_is_an_error_where_it_was_named_and_a_note_where_it_was_found(
        self, tiny_copy: Path
    ) -> None:
        path = tiny_copy / "exp" / "rand_perm_cam.mat"
        write_permutations(path, tiny_copy, drop=1)
        with pytest.raises(ProtocolError, match="one per image on disk"):
            sysu_mm01(SysuOptions(permutations=path), tiny_copy)
        dataset = sysu_mm01(SysuOptions(), tiny_copy)
        assert rules(dataset) == {"S"}
        assert any("one per image on disk" in note for note in dataset.notes)

    def test_a_missing_file_that_was_named_is_an_error(self, tiny: Path) -> None:
        with pytest.raises(DataError, match="was not found"):
            sysu_mm01(SysuOptions(permutations=tiny / "none.mat"), tiny)

    def test_a_tree_that_is_not_the_published_one_is_noted(self, tiny: Path) -> None:
        notes = sysu_mm01(SysuOptions(include_val=False), tiny).notes
        assert "not the published SYSU-MM01's images" in notes[0]
        assert "published 6775 and 3803 of 96" in notes[0]


class TestRegdb:
    def test_trials_share_a_fingerprint_and_differ_in_their_images(self, regdb_tree: Path) -> None:
        first, second = (regdb(RegdbOptions(trial=trial), regdb_tree) for trial in (1, 2))
        assert first.fingerprint == second.fingerprint
        assert (first.trial, second.trial) == (1, 2)
        assert set(first.test.paths) != set(second.test.paths)
        assert set(first.train.paths) | set(first.test.paths) == set(second.train.paths) | set(second.test.paths)
        assert "published RegDB" in first.notes[0]

    def test_both_directions_are_scored(self, regdb_tree: Path) -> None:
        dataset = regdb(RegdbOptions(), regdb_tree)
        assert [protocol.search for protocol in dataset.protocols] == ["visible-to-infrared", "infrared-to-visible"]

    @pytest.mark.parametrize("change", ["pixel", "list"])
    def test_another_image_or_list_gives_another_fingerprint(
        self, regdb_tree: Path, tmp_path: Path, change: str
    ) -> None:
        copy = Path(shutil.copytree(regdb_tree, tmp_path / "copy"))
        before = regdb(RegdbOptions(), copy).fingerprint
        if change == "pixel":
            image = sorted((copy / "Thermal").rglob("*.bmp"))[0]
            content = bytearray(image.read_bytes())
            content[-1] ^= 255
            image.write_bytes(content)
        else:
            # of a trial that is not even read
            listed = copy / "idx" / "train_visible_7.txt"
            listed.write_text("\n".join(reversed(listed.read_text().split("\n"))))
        assert regdb(RegdbOptions(), copy).fingerprint != before


@pytest.mark.parametrize(("make", "options"), [(sysu_mm01, SysuOptions()), (regdb, RegdbOptions())])
def test_a_published_dataset_needs_its_folder(make, options) -> None:
    with pytest.raises(SettingsError, match="add --data DIR"):
        make(options, None)
