"""Pseudo-label diagnostics on labellings small enough to judge by eye, and against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from harness.errors import ContractError
from harness.evaluation import association_quality, partition_quality

IDENTITY = np.array([7, 7, 9, 9, 7, 9])
MODALITY = np.array([0, 0, 0, 0, 1, 1])


def test_a_perfect_joint_partition_has_full_agreement_and_only_mixed_clusters():
    quality = partition_quality(np.array([0, 0, 1, 1, 0, 1]), IDENTITY, modality=MODALITY)
    assert (quality.ari, quality.nmi, quality.mixed_share) == (1, 1, 1)
    assert (quality.clusters, quality.identities, quality.images, quality.outlier_share) == (2, 2, 6, 0)


def test_outliers_count_in_their_share_only():
    quality = partition_quality(np.array([0, -1, 1, 1, -1, -1]), IDENTITY, modality=MODALITY)
    assert quality.outlier_share == 0.5
    assert quality.ari == 1
    assert quality.mixed_share == 0


def test_images_out_of_scope_are_no_outliers():
    visible = MODALITY == 0
    quality = partition_quality(np.array([0, 0, 1, -1, -1, -1]), IDENTITY, modality=MODALITY, scope=visible)
    assert quality.images == 4
    assert quality.outlier_share == 0.25


def test_agreement_is_none_when_every_image_is_an_outlier():
    quality = partition_quality(np.full(6, -1), IDENTITY, modality=MODALITY)
    assert (quality.ari, quality.nmi, quality.mixed_share) == (None, None, None)
    assert (quality.clusters, quality.outlier_share) == (0, 1)


@settings(max_examples=50, deadline=None)
@given(labels=hnp.arrays(np.int64, 6, elements=st.integers(-1, 3)))
def test_agreement_is_that_of_scikit_learn_over_the_clustered_images(labels):
    quality = partition_quality(labels, IDENTITY, modality=MODALITY)
    kept = labels >= 0
    if kept.any():
        assert quality.ari == pytest.approx(adjusted_rand_score(IDENTITY[kept], labels[kept]), abs=1e-8)
        assert quality.nmi == pytest.approx(normalized_mutual_info_score(IDENTITY[kept], labels[kept]), abs=1e-8)
        mixed = [len(set(MODALITY[labels == c].tolist())) == 2 for c in set(labels[kept].tolist())]
        assert quality.mixed_share == pytest.approx(np.mean(mixed), abs=1e-8)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_association_precision_is_that_of_a_plain_count(data):
    visible = np.array(data.draw(st.permutations([0, 0, 1, 1, 2, 2, 0, -1])) + [-1] * 8)
    infrared = np.array([-1] * 8 + data.draw(st.permutations([0, 1, 1, 0, 0, 1, -1, 0])))
    identity = data.draw(hnp.arrays(np.int64, 16, elements=st.integers(3, 5)))
    links = data.draw(hnp.arrays(np.int64, 3, elements=st.integers(-1, 1)))
    quality = association_quality(visible, infrared, links=links, identity=identity)

    def majority(members):
        counts = Counter(members.tolist())
        return min(counts, key=lambda name: (-counts[name], name))

    agree = [
        majority(identity[visible == a]) == majority(identity[infrared == b]) for a, b in enumerate(links) if b >= 0
    ]
    assert quality.links == len(agree)
    assert quality.cover == pytest.approx(len(agree) / 3, abs=1e-8)
    assert quality.precision == (pytest.approx(np.mean(agree), abs=1e-8) if agree else None)


def test_a_link_to_a_cluster_that_does_not_exist_is_refused():
    labels = np.array([0, 0, -1, -1])
    with pytest.raises(ContractError, match="from -1"):
        association_quality(labels, np.array([-1, -1, 0, 0]), links=np.array([1]), identity=np.arange(4))


def test_clusters_with_a_gap_in_their_numbers_are_refused():
    with pytest.raises(ContractError, match="without gaps"):
        association_quality(np.array([0, 2]), np.array([0, 0]), links=np.array([0, 0]), identity=np.arange(2))


def test_labels_and_identities_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match="'modality' has shape"):
        partition_quality(np.array([0, 0]), np.array([1, 1]), modality=np.array([0]))


def test_a_cluster_outside_the_scope_is_refused():
    with pytest.raises(ContractError, match="outside its scope"):
        partition_quality(np.array([0, 0]), np.array([1, 1]), modality=np.array([0, 1]), scope=np.array([True, False]))
