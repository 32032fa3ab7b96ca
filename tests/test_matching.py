from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from harness.errors import HarnessError, TrainingError
from harness.matching import greedy_vote_matching, mutual_nearest_clusters, progressive_graph_matching


def waves(count, *, step, phase, width):
    k, j = np.arange(count)[:, None], np.arange(width)[None, :]
    return normalize(torch.from_numpy(np.cos(step * k * (j + 1) + phase)), dim=1)


def visible_waves(count):
    return waves(count, step=1.1, phase=0.3, width=4)


INFRARED = waves(3, step=0.7, phase=0.6, width=4)


def at_angles(*degrees):
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def as_lists(maps):
    return [one.tolist() for one in maps]


def test_progressive_matching_of_five_visible_with_three_infrared_clusters():
    found = progressive_graph_matching(visible_waves(5), INFRARED)
    assert as_lists(found) == [[0, 1, 1, 2, 2], [0, 1, 4]]
    assert all(one.dtype == torch.int64 for one in found)


def test_progressive_matching_goes_on_until_every_cluster_has_a_partner():
    """Eight with three: the released code leaves clusters 2 and 3 without one."""
    to_infrared, to_visible = as_lists(progressive_graph_matching(visible_waves(8), INFRARED))
    assert {k: to_infrared[k] for k in (0, 5, 7)} == {0: 0, 5: 1, 7: 2}
    assert {k: to_infrared[k] for k in (1, 4, 6)} == {1: 1, 4: 2, 6: 0}
    assert {to_infrared[2], to_infrared[3]} <= {0, 1, 2}
    assert to_infrared[2] != to_infrared[3]
    assert to_visible == [0, 5, 7]


def test_progressive_matching_swaps_the_roles_when_infrared_clusters_are_more():
    """Two with three: the released code returns empty maps."""
    to_infrared, to_visible = as_lists(progressive_graph_matching(visible_waves(2), INFRARED))
    assert to_infrared == [0, 1]
    assert to_visible[:2] == [0, 1]
    assert to_visible[2] == 1
    swapped = as_lists(progressive_graph_matching(INFRARED, visible_waves(2)))
    assert swapped == [to_visible, to_infrared]


def test_further_passes_leave_the_one_to_one_map_alone():
    infrared = at_angles(2.0, 85.0)
    found = progressive_graph_matching(at_angles(0.0, 10.0, 80.0), infrared)
    assert as_lists(found) == [[0, 0, 1], [0, 2]]
    found = progressive_graph_matching(at_angles(0.0, 10.0, 20.0, 80.0, 95.0), infrared)
    assert as_lists(found) == [[0, 0, 0, 1, 1], [0, 3]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_the_first_pass_has_the_least_cost_of_all_one_to_one_maps(visible, infrared, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(visible, 3)), rng.normal(size=(infrared, 3))
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    costs = np.exp(-cosines)
    few, many = sorted((visible, infrared))
    oriented = costs.T if infrared <= visible else costs
    least = min(sum(oriented[i, j] for i, j in enumerate(choice)) for choice in permutations(range(many), few))
    to_infrared, to_visible = progressive_graph_matching(torch.from_numpy(a), torch.from_numpy(b))
    two_way = to_visible if infrared <= visible else to_infrared
    assert len(set(two_way.tolist())) == few
    assert sum(oriented[i, j] for i, j in enumerate(two_way.tolist())) == pytest.approx(least)
    assert to_infrared.min() >= 0
    assert to_visible.min() >= 0
    assert np.bincount(to_infrared if visible >= infrared else to_visible, minlength=few).max() <= -(-many // few)


def test_mutual_nearest_clusters_choose_each_other():
    found = mutual_nearest_clusters(at_angles(0.0, 10.0, 80.0), at_angles(2.0, 85.0, 200.0))
    assert as_lists(found) == [[0, -1, 1], [0, 2, -1]]


def test_mutual_nearest_ties_go_to_the_lower_index():
    found = mutual_nearest_clusters(at_angles(0.0, 0.0), at_angles(0.0, 0.0, 0.0))
    assert as_lists(found) == [[0, -1], [0, -1, -1]]


@pytest.mark.parametrize("match", [progressive_graph_matching, mutual_nearest_clusters])
def test_without_clusters_there_are_no_partners(match):
    two, none = torch.eye(2), torch.empty(0, 2)
    assert as_lists(match(two, none)) == [[-1, -1], []]
    assert as_lists(match(none, two)) == [[], [-1, -1]]
    assert as_lists(match(none, none)) == [[], []]


@pytest.mark.parametrize("match", [progressive_graph_matching, mutual_nearest_clusters])
def test_centroids_that_cannot_be_matched_are_errors(match):
    with pytest.raises(HarnessError, match="equal width"):
        match(torch.eye(2), torch.eye(3))
    with pytest.raises(TrainingError, match=r"infrared .* row 1"):
        match(torch.eye(2), torch.tensor([[1.0, 0.0], [torch.nan, 0.0]]))


@pytest.mark.parametrize("block", [1, 4, 1024])
def test_votes_of_the_worked_waves(block):
    accepted = greedy_vote_matching(
        waves(6, step=0.5, phase=0.0, width=3),
        waves(5, step=0.6, phase=0.2, width=3),
        visible_labels_N=torch.tensor([0, 0, 1, 1, 2, -1]),
        infrared_labels_M=torch.tensor([0, 0, 1, -1, 1]),
        block=block,
    )
    assert accepted == [(0, 0), (1, 1)]


def test_votes_of_the_worked_plane_are_accepted_by_count():
    accepted = greedy_vote_matching(
        torch.tensor([[1, 0], [0.96, 0.28], [0.6, 0.8], [0, 1]]),
        torch.tensor([[0.8, 0.6], [0.28, 0.96], [-0.6, 0.8]]),
        visible_labels_N=torch.tensor([0, 0, 1, 1]),
        infrared_labels_M=torch.tensor([0, 1, 1]),
    )
    assert accepted == [(1, 1), (0, 0)]


def test_equal_votes_go_to_the_larger_similarity_and_then_to_the_lower_labels():
    visible, infrared = torch.eye(3), torch.tensor([[0.7, 0.9, 0.0], [0.0, 0.0, 0.9], [0.0, 0.0, 0.9]])
    accepted = greedy_vote_matching(
        visible, infrared, visible_labels_N=torch.arange(3), infrared_labels_M=torch.arange(3)
    )
    assert accepted == [(1, 0), (2, 1)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 1000))
def test_votes_equal_a_walk_over_all_pairs(n, m, seed):
    rng = np.random.default_rng(seed)
    visible, infrared = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    y, z = rng.integers(-1, 3, n), rng.integers(-1, 3, m)
    pairs = [(visible[i] @ infrared[j], int(y[i]), int(z[j])) for i in range(n) for j in range(m)]
    votes, taken, expected = {}, (set(), set()), []
    for similarity, k, l in sorted(pairs, reverse=True):
        if similarity >= 0.5 and k >= 0 and l >= 0:
            votes[k, l] = votes.get((k, l), 0) + 1
    for k, l in sorted(votes, key=votes.get, reverse=True):
        if k not in taken[0] and l not in taken[1]:
            expected.append((k, l))
            taken[0].add(k)
            taken[1].add(l)
    found = greedy_vote_matching(
        torch.from_numpy(visible),
        torch.from_numpy(infrared),
        visible_labels_N=torch.from_numpy(y),
        infrared_labels_M=torch.from_numpy(z),
        block=3,
    )
    assert found == expected


def test_votes_with_labels_of_the_wrong_length_are_an_error():
    with pytest.raises(HarnessError, match="one label per feature row"):
        greedy_vote_matching(
            torch.eye(2), torch.eye(2), visible_labels_N=torch.zeros(1), infrared_labels_M=torch.zeros(2)
        )
