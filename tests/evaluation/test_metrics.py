"""CMC, AP and INP against a literal loop, scikit-learn, and rankings small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from harness.errors import ProtocolError
from harness.evaluation.metrics import Galleries, score_similarity
from harness.evaluation.walk import stable_ranking


@st.composite
def rankings(draw):
    """A similarity matrix with few distinct values (many ties), labels, an exclusion mask; some query is valid."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    values = st.sampled_from([-1.0, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 1.0])
    similarity = draw(hnp.arrays(dtype, (queries, gallery), elements=values))
    query_identity = draw(hnp.arrays(np.int64, queries, elements=st.integers(0, 4)))
    gallery_identity = draw(hnp.arrays(np.int64, gallery, elements=st.integers(0, 4)))
    excluded = draw(hnp.arrays(bool, (queries, gallery)))
    excluded[0, 0] = False
    query_identity[0] = gallery_identity[0]
    return similarity, query_identity, gallery_identity, excluded


@settings(max_examples=200, deadline=None)
@given(case=rankings(), cmc=st.sampled_from(["identity", "image"]))
def test_scores_equal_those_of_a_literal_loop_even_with_ties(oracle, case, cmc):
    similarity, query_identity, gallery_identity, excluded = case
    scores = score_similarity(similarity, query_identity, gallery_identity, excluded=excluded, cmc=cmc)
    curve, mean_ap, mean_inp, valid = oracle.naive_scores(
        similarity, query_identity, gallery_identity, excluded=excluded, cmc=cmc
    )
    np.testing.assert_allclose(scores.cmc, curve, rtol=0, atol=1e-12)
    assert scores.mAP == pytest.approx(mean_ap, abs=1e-12)
    assert scores.mINP == pytest.approx(mean_inp, abs=1e-12)
    assert scores.valid_queries == valid


@settings(max_examples=50, deadline=None)
@given(case=rankings(), cmc=st.sampled_from(["identity", "image"]), data=st.data())
def test_a_gallery_among_others_in_a_pool_has_the_figures_it_has_alone(case, cmc, data):
    similarity, query_identity, gallery_identity, excluded = case
    chosen = data.draw(hnp.arrays(bool, len(gallery_identity)))
    chosen[0] = True
    columns = np.flatnonzero(chosen)
    every = np.arange(len(gallery_identity))
    pool = Galleries(gallery_identity, [every, columns, every[:1]], cmc=cmc)
    alone = Galleries(gallery_identity[columns], [np.arange(len(columns))], cmc=cmc)
    from_pool = pool.query_figures(similarity.astype(np.float32), query_identity, excluded=excluded)
    from_alone = alone.query_figures(
        similarity[:, columns].astype(np.float32), query_identity, excluded=excluded[:, columns]
    )
    for name in ("rank", "average_precision", "inverse_penalty"):
        np.testing.assert_array_equal(getattr(from_pool, name)[:, 1], getattr(from_alone, name)[:, 0])


def test_average_precision_equals_that_of_scikit_learn_without_ties():
    rng = np.random.default_rng(0)
    similarity = rng.permuted(np.tile(np.linspace(-1, 1, 60), (25, 1)), axis=1)
    query_identity, gallery_identity = rng.integers(0, 5, 25), np.arange(60) % 5
    galleries = Galleries(gallery_identity, [np.arange(60)], cmc="identity")
    figures = galleries.query_figures(similarity.astype(np.float32), query_identity)
    expected = [
        average_precision_score(gallery_identity == identity, row)
        for identity, row in zip(query_identity, similarity, strict=True)
    ]
    np.testing.assert_allclose(figures.average_precision[:, 0], expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(
            st.floats(-4, 4, width=32), st.sampled_from(np.float32([0.0, -0.0, 1e-45, -1e-45, 0.5])).map(float)
        ),
    )
)
def test_the_ranking_is_the_stable_one_for_every_float32(similarity):
    found = stable_ranking(similarity.view(np.uint32), np.arange(similarity.shape[1]))
    np.testing.assert_array_equal(found, np.argsort(-similarity, axis=1, kind="stable"))


def test_a_tie_goes_to_the_earlier_gallery_image():
    similarity = np.full((1, 3), 0.5, dtype=np.float32)
    gallery_identity = np.array([1, 2, 3])
    for identity in gallery_identity:
        scores = score_similarity(similarity, np.array([identity]), gallery_identity)
        assert int(np.argmax(scores.cmc)) + 1 == identity


def test_repeated_images_of_an_identity_take_one_place_in_cmc_but_all_in_average_precision():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    query, gallery = np.array([2]), np.array([1, 1, 1, 2])
    by_identity = score_similarity(similarity, query, gallery)
    by_image = score_similarity(similarity, query, gallery, cmc="image")
    assert by_identity.cmc.tolist() == [0, 1]
    assert by_image.cmc.tolist() == [0, 0, 0, 1]
    assert by_identity.mAP == by_image.mAP == 0.25


def test_inverse_negative_penalty_looks_at_the_last_correct_image():
    scores = score_similarity(np.array([[0.9, 0.8, 0.7, 0.6]]), np.array([1]), np.array([1, 2, 2, 1]))
    assert scores.mINP == 0.5
    assert scores.mAP == pytest.approx((1 + 2 / 4) / 2)


def test_queries_without_a_correct_image_are_left_out_of_every_mean():
    similarity = np.array([[0.9, 0.1], [0.9, 0.1]])
    scores = score_similarity(similarity, np.array([1, 7]), np.array([1, 2]))
    assert (scores.queries, scores.valid_queries) == (2, 1)
    assert scores.cmc.tolist() == [1, 1]
    assert scores.mAP == scores.mINP == 1


def test_a_gallery_of_one_identity_has_a_curve_of_one_entry():
    scores = score_similarity(np.array([[0.1, 0.2]]), np.array([4]), np.array([4, 4]))
    assert scores.cmc.tolist() == [1]


def test_cmc_beyond_the_curve_is_its_last_value():
    scores = score_similarity(np.array([[0.1, 0.2]]), np.array([1]), np.array([1, 2]))
    assert scores.rank(20) == scores.rank(2) == 1
    with pytest.raises(ProtocolError, match="start at 1"):
        scores.rank(0)


def test_no_valid_query_is_an_error():
    with pytest.raises(ProtocolError, match="None of the 1 queries"):
        score_similarity(np.array([[0.1]]), np.array([1]), np.array([2]))


def test_a_similarity_that_does_not_fit_the_labels_is_an_error():
    with pytest.raises(ProtocolError, match="does not fit 2 queries"):
        score_similarity(np.zeros((1, 1)), np.array([1, 2]), np.array([1]))


def test_a_similarity_with_nan_is_an_error():
    with pytest.raises(ProtocolError, match="NaN"):
        score_similarity(np.array([[np.nan]]), np.array([1]), np.array([1]))


def test_a_pool_larger_than_a_sixteen_bit_count_is_scored(oracle):
    rng = np.random.default_rng(0)
    similarity = rng.random((2, 40_000)).astype(np.float32).round(3)  # with ties
    gallery_identity = rng.integers(0, 50, 40_000)
    scores = score_similarity(similarity, np.array([3, 7]), gallery_identity)
    curve, mean_ap, mean_inp, _ = oracle.naive_scores(similarity, np.array([3, 7]), gallery_identity)
    np.testing.assert_allclose(scores.cmc, curve, rtol=0, atol=1e-12)
    assert (scores.mAP, scores.mINP) == pytest.approx((mean_ap, mean_inp), abs=1e-12)
