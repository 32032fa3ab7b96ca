"""The clusters x instances sampler with camera preference (check S of baseline.md)."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.sampler import CrossCameraSampler
from harness.errors import DataError

# (cluster, camera) of check S; the global index is the row plus 100.
ITEMS = [(0, 0), (0, 0), (0, 1), (0, 1), (0, 1), *[(1, 0)] * 5, (2, 1), (3, 0), (3, 1), (3, 2), (-1, 0)]
OFFSET = 100


def sampler(items=ITEMS, *, instances=4, clusters=2, seed=0, **changes):
    labels, camera = np.array(items, dtype=np.int64).T
    return CrossCameraSampler(
        labels,
        camera,
        index=np.arange(len(items)) + OFFSET,
        instances=instances,
        clusters=clusters,
        generator=np.random.default_rng(seed),
        **changes,
    )


def passes(count=200, **changes):
    drawing = sampler(**changes)
    return [[(group - OFFSET).tolist() for group in drawing.one_pass()] for _ in range(count)]


def cluster_of(row):
    return ITEMS[row][0]


def test_a_pass_emits_every_cluster_once_thirteen_of_sixteen_rows():
    for groups in passes():
        assert sum(len(group) for group in groups) == 13
        assert sorted(cluster_of(group[0]) for group in groups) == [0, 1, 2, 3]
        assert all(len({cluster_of(row) for row in group}) == 1 for group in groups)


def test_outliers_are_never_drawn():
    assert all(14 not in group for groups in passes() for group in groups)


def test_companions_come_from_cameras_other_than_the_anchors():
    companions = {anchor: set() for anchor in range(14)}
    for groups in passes(600):
        for anchor, *others in groups:
            companions[anchor].update(others)
    assert companions[0] == companions[1] == {2, 3, 4}
    assert companions[2] == companions[3] == companions[4] == {0, 1}
    assert [companions[anchor] for anchor in (11, 12, 13)] == [{12, 13}, {11, 13}, {11, 12}]
    assert companions[5] == {6, 7, 8, 9}
    assert companions[10] == set()


def test_companions_are_distinct_when_there_are_enough():
    for groups in passes():
        for group in groups:
            if cluster_of(group[0]) == 1:
                assert len(set(group)) == 4


def test_exactly_as_many_candidates_as_instances_are_drawn_without_replacement_and_one_fewer_with():
    def repeats(candidates):
        items = [(0, 0), *[(0, 1)] * candidates]
        drawing = sampler(items, instances=4, clusters=1)
        groups = [next(drawing.one_pass()) - OFFSET for _ in range(300)]
        return any(len(set(group)) < 4 for group in groups if group[0] == 0)

    assert not repeats(4)
    assert repeats(3)


def test_anchors_are_uniform_over_the_cluster():
    anchors = Counter(group[0] for groups in passes(2000) for group in groups if cluster_of(group[0]) == 0)
    assert all(abs(anchors[row] - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8) for row in range(5))


def test_without_camera_preference_companions_come_from_the_whole_cluster():
    companions = set()
    for groups in passes(prefer_other_cameras=False):
        for anchor, *others in groups:
            assert anchor not in others
            if anchor == 2:
                companions.update(others)
    assert companions == {0, 1, 3, 4}


def test_batches_are_always_full_and_hold_distinct_clusters():
    for batch in sampler(clusters=3).batches(50):
        groups = (batch - OFFSET).reshape(3, 4)
        clusters = [[cluster_of(row) for row in group] for group in groups]
        assert all(len(set(group)) == 1 for group in clusters)
        assert len({group[0] for group in clusters}) == 3


def test_a_single_image_cluster_is_repeated_so_that_groups_never_shift():
    groups = np.concatenate([batch.reshape(2, 4) for batch in sampler().batches(40)]) - OFFSET
    single = [group.tolist() for group in groups if group[0] == 10]
    assert single
    assert all(group == [10] * 4 for group in single)


def test_each_pass_spreads_over_its_batches_before_a_cluster_returns():
    batches = [batch - OFFSET for batch in sampler(clusters=2).batches(20)]
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert {cluster_of(row) for row in [*first, *second]} == {0, 1, 2, 3}


def test_clusters_repeat_when_there_are_fewer_than_a_batch_needs():
    for batch in sampler(clusters=6).batches(20):
        counts = Counter(cluster_of(row) for row in (batch - OFFSET).reshape(6, 4)[:, 0])
        assert set(counts) == {0, 1, 2, 3}
        assert max(counts.values()) <= 2


def test_the_same_generator_gives_the_same_batches_and_another_seed_does_not():
    def draws(seed):
        return np.stack(list(sampler(seed=seed).batches(10)))

    np.testing.assert_array_equal(draws(3), draws(3))
    assert (draws(3) != draws(4)).any()


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_a_restored_sampler_continues_with_the_same_draws(taken):
    original = sampler(clusters=3, seed=5)
    list(original.batches(taken))
    state = json.loads(json.dumps(original.state_dict()))
    restored = sampler(clusters=3, seed=99)
    restored.load_state_dict(state)
    for expected, drawn in zip(original.batches(10), restored.batches(10), strict=True):
        np.testing.assert_array_equal(drawn, expected)


def test_a_state_of_other_clusters_is_refused():
    state = sampler(clusters=1).state_dict() | {"waiting": [7]}
    with pytest.raises(DataError, match="saved with other pseudo labels"):
        sampler().load_state_dict(state)


def test_nothing_to_draw_from_is_an_error_with_advice():
    with pytest.raises(DataError, match="all 2 images are outliers"):
        sampler([(-1, 0), (-1, 1)])


def test_sizes_and_shapes_are_checked():
    with pytest.raises(DataError, match="at least one"):
        sampler(instances=0)
    with pytest.raises(DataError, match="one length"):
        CrossCameraSampler(
            np.zeros(2, np.int64),
            np.zeros(3, np.int64),
            index=np.arange(2),
            instances=1,
            clusters=1,
            generator=np.random.default_rng(0),
        )


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 3)), min_size=1, max_size=40),
    instances=st.integers(1, 6),
    clusters=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_invariants_hold_for_any_labelling(items, instances, clusters, seed):
    if all(label < 0 for label, _ in items):
        return
    drawing = sampler(items, instances=instances, clusters=clusters, seed=seed)
    for batch in drawing.batches(4):
        assert batch.shape == (clusters * instances,)
        for group in (batch - OFFSET).reshape(clusters, instances):
            anchor, others = group[0], group[1:]
            label, camera = items[anchor]
            members = [row for row, item in enumerate(items) if item[0] == label]
            assert label >= 0
            assert set(group) <= set(members)
            if len(members) == 1 or instances == 1:
                continue
            elsewhere = [row for row in members if items[row][1] != camera]
            pool = elsewhere or [row for row in members if row != anchor]
            assert set(others) <= set(pool)
            if len(pool) >= instances:
                assert len(set(others)) == instances - 1
