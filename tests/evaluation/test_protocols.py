"""Identifiers, test-set labels and the official files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from harness.errors import DataError, ProtocolError
from harness.evaluation import (
    PROTOCOLS,
    Protocol,
    TestSet,
    protocol,
    protocols_of,
    read_official_identities,
    read_official_permutations,
)


def test_every_protocol_is_found_under_its_identifier():
    assert all(protocol(name).identifier == name for name in PROTOCOLS)


@pytest.mark.parametrize(
    ("dataset", "primary"),
    [
        ("sysu-mm01", "sysu-mm01/all/single/S/v1"),
        ("rendered", "rendered/all/single/S/v1"),
        ("regdb", "regdb/visible-to-infrared/v1"),
    ],
)
def test_the_first_protocol_of_a_dataset_is_its_primary_one(dataset, primary):
    assert protocols_of(dataset)[0].identifier == primary


def test_an_unknown_protocol_is_answered_with_near_names():
    with pytest.raises(ProtocolError, match="sysu-mm01/all/single/S/v1"):
        protocol("sysu-mm01/all/single/S")


def test_an_unknown_dataset_is_answered_with_near_names():
    with pytest.raises(ProtocolError, match="sysu-mm01"):
        protocols_of("sysu")


@pytest.mark.parametrize(("rule", "shots"), [("S", None), ("S", 0), ("fixed", 1)])
def test_shots_that_contradict_the_gallery_rule_are_refused(rule, shots):
    with pytest.raises(ProtocolError, match="shots"):
        Protocol(dataset="x", search="all", query_cameras=(2,), gallery_cameras=(1,), infrared_cameras=(2,),
                 cameras=(1, 2), gallery_rule=rule, shots=shots)  # fmt: skip


def test_images_are_numbered_by_file_name_within_each_folder():
    test_set = TestSet.from_names([1, 1, 2, 1], [1, 1, 1, 2], names=["0007.jpg", "0002.jpg", "0009.jpg", "0001.jpg"])
    assert test_set.order.tolist() == [1, 0, 0, 0]


def test_a_gap_in_the_numbering_is_refused():
    with pytest.raises(ProtocolError, match="identity 4 in camera 2"):
        TestSet(identity=np.array([4, 4]), camera=np.array([2, 2]), order=np.array([0, 2]))


@pytest.mark.parametrize(
    ("identity", "message"),
    [([1.0, 2.0], "expected integers"), ([1, 2, 3], "different lengths"), ([1, -1], "negative")],
)
def test_labels_that_are_no_labels_are_refused(identity, message):
    with pytest.raises(ProtocolError, match=message):
        TestSet(identity=np.array(identity), camera=np.array([1, 1]), order=np.array([0, 0]))


def test_the_official_files_hold_96_test_identities_with_ten_permutations(splits):
    identities = read_official_identities(splits / "test_id.mat")
    permutations = read_official_permutations(splits / "rand_perm_cam.mat")
    assert len(identities) == 96
    assert permutations[1, 6].shape == (10, 42)
    queries = sum(table.shape[1] for (c, i), table in permutations.items() if c in (3, 6) and i in identities)
    assert queries == 3803


def test_a_missing_or_damaged_official_file_is_named(tmp_path):
    with pytest.raises(DataError, match="was not found"):
        read_official_permutations(tmp_path / "rand_perm_cam.mat")
    damaged = tmp_path / "test_id.mat"
    damaged.write_bytes(b"no matlab here")
    with pytest.raises(DataError, match=r"test_id\.mat cannot be read"):
        read_official_identities(damaged)


def test_a_matlab_file_with_other_content_is_refused(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"other": np.arange(3), "rand_perm_cam": np.arange(3)})
    with pytest.raises(DataError, match="no variable 'id'"):
        read_official_identities(tmp_path / "other.mat")
    with pytest.raises(DataError, match="one table of integers"):
        read_official_permutations(tmp_path / "other.mat")


def test_evaluation_and_leaderboard_import_no_heavy_library():
    code = "import sys, harness.evaluation, harness.leaderboard; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "sklearn", "scipy", "tabulate"}.isdisjoint(done.stdout.split())
