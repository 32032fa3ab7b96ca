"""Which images each trial's gallery takes, and that nobody else's random numbers are touched."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import ProtocolError
from harness.evaluation import TestSet, protocol, read_official_identities, read_official_permutations
from harness.evaluation.galleries import draw_galleries, seeded_picks

ALL_SINGLE = protocol("sysu-mm01/all/single/S/v1")
OFFICIAL = protocol("sysu-mm01/all/single/O/v1")


def _folder_lengths(splits, cameras):
    """Lists of ((identity, camera), images) in the drawing order of protocol S."""
    permutations = read_official_permutations(splits / "rand_perm_cam.mat")
    identities = read_official_identities(splits / "test_id.mat")
    folders = sorted(
        (f"{identity:04d}", cameras.index(c)) for c, identity in permutations if c in cameras if identity in identities
    )
    return [((int(name), cameras[place]), permutations[cameras[place], int(name)].shape[1]) for name, place in folders]


def _picks(splits, cameras, *, seed):
    folders = _folder_lengths(splits, cameras)
    picks = seeded_picks([length for _, length in folders], 1, seed=seed)
    return {key: (pick[0], length) for (key, length), pick in zip(folders, picks, strict=True)}


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, {(6, 1): (24, 42), (6, 2): (24, 29), (6, 4): (13, 20), (6, 5): (1, 20), (10, 1): (16, 34),
             (10, 2): (16, 30), (10, 4): (15, 20), (10, 5): (12, 20), (17, 4): (9, 20), (17, 5): (15, 20)}),
        (1, {(6, 1): (8, 42), (6, 2): (18, 29), (6, 4): (2, 20), (6, 5): (8, 20), (10, 1): (7, 34),
             (10, 2): (15, 30), (10, 4): (14, 20), (10, 5): (15, 20)}),
        (9, {(6, 1): (29, 42), (6, 2): (19, 29), (6, 4): (11, 20), (6, 5): (8, 20)}),
    ],
)  # fmt: skip
def test_all_search_picks_are_those_of_the_published_repositories(splits, seed, expected):
    picks = _picks(splits, (1, 2, 4, 5), seed=seed)
    assert len(picks) == 301
    assert {key: picks[key] for key in expected} == expected


def test_indoor_picks_are_those_of_the_published_repositories(splits):
    picks = _picks(splits, (1, 2), seed=0)
    expected = {(6, 1): (24, 42), (6, 2): (24, 29), (10, 1): (26, 34), (10, 2): (1, 30), (27, 1): (4, 13),
                (27, 2): (32, 40), (28, 1): (15, 17), (28, 2): (12, 18), (54, 1): (29, 31),
                (54, 2): (9, 23)}  # fmt: skip
    assert len(picks) == 112
    assert {key: picks[key] for key in expected} == expected


def test_the_first_seeded_gallery_of_the_toy_is_the_expected_one(synthetic):
    test_set, _ = synthetic.labelled_features(synthetic.sysu_toy_counts(), dims=6)
    (rows,) = draw_galleries(test_set, ALL_SINGLE, trials=1)
    found = list(zip(test_set.identity[rows], test_set.camera[rows], test_set.order[rows] + 1, strict=True))
    assert found == [
        (1, 1, 2), (1, 2, 2), (1, 5, 1), (2, 1, 2), (2, 2, 3), (2, 4, 2), (4, 1, 4), (4, 4, 2), (4, 5, 2),
        (5, 4, 2), (5, 5, 3), (6, 1, 1), (6, 2, 3), (7, 1, 1), (7, 2, 2), (7, 4, 1), (8, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("shots", [1, 3])
def test_picks_are_those_of_the_global_functions_after_seeding(shots):
    lengths = [3, 17, 42, 8, 5]
    generator = random.Random(4)
    files = [[f"{k:04d}.jpg" for k in range(length)] for length in lengths]
    if shots == 1:
        expected = [[names.index(generator.choice(names))] for names in files]
    else:
        expected = [[names.index(name) for name in generator.sample(names, shots)] for names in files]
    assert seeded_picks(lengths, shots, seed=4) == expected


def test_the_global_generators_are_left_alone(synthetic):
    test_set, _ = synthetic.labelled_features(synthetic.sysu_toy_counts(), dims=6)
    before, numpy_before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    draw_galleries(test_set, ALL_SINGLE, trials=10)
    assert random.getstate() == before
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_official_galleries_go_camera_by_camera(synthetic):
    test_set, _ = synthetic.labelled_features(synthetic.sysu_toy_counts(), dims=6)
    _, rows = draw_galleries(test_set, OFFICIAL, trials=2, permutations=synthetic.sysu_toy_permutations())
    labels = list(zip(test_set.camera[rows], test_set.identity[rows], strict=True))
    assert labels == sorted(labels)
    # camera 1, identity 1, n = 3: entry 0 of row t = 2 is ((0 + 2 + 1 + 1) mod 3) + 1
    assert test_set.order[rows[0]] + 1 == 2


def test_a_folder_with_too_few_images_for_multi_shot_is_named():
    counts = {(1, 5): 10, (2, 5): 9, (3, 5): 1}
    rows = [(i, c, k) for (c, i), n in counts.items() for k in range(n)]
    identity, camera, order = map(np.array, zip(*rows, strict=True))
    with pytest.raises(ProtocolError, match=r"Identity 5 has 9 images in camera 2.*takes 10"):
        draw_galleries(
            TestSet(identity=identity, camera=camera, order=order),
            protocol("sysu-mm01/all/multi/S/v1"),
            trials=1,
        )


def _one_folder(images):
    return TestSet(identity=np.full(images, 1), camera=np.full(images, 1), order=np.arange(images))


def test_official_galleries_need_the_permutations():
    with pytest.raises(ProtocolError, match=r"rand_perm_cam\.mat"):
        draw_galleries(_one_folder(2), OFFICIAL, trials=1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.array([[1, 2, 3]]), "one per image"),
        (np.array([[1, 1]]), "no permutation"),
        (np.empty((0, 2), dtype=np.int64), "at least 1 rows"),
    ],
)
def test_permutations_that_do_not_fit_the_images_are_refused(table, message):
    with pytest.raises(ProtocolError, match=message):
        draw_galleries(_one_folder(2), OFFICIAL, trials=1, permutations={(1, 1): table})


def test_permutations_without_a_folder_of_the_test_set_are_refused():
    with pytest.raises(ProtocolError, match="hold nothing for identity 1 in camera 1"):
        draw_galleries(_one_folder(2), OFFICIAL, trials=1, permutations={})


def test_other_numbers_of_shots_have_their_own_identifier():
    assert replace(ALL_SINGLE, shots=2).identifier == "sysu-mm01/all/2-shot/S/v1"
