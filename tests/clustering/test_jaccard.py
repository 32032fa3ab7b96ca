import functools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_matrix

from harness.clustering.dbscan import dbscan
from harness.clustering.expansion import averaging_matrix, modality_balanced, plain
from harness.clustering.jaccard import jaccard_distance, k_reciprocal_encoding, k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.clustering.threads import over_rows
from harness.errors import ContractError, HarnessError, SettingsError, TrainingError
from tests.clustering import oracle

CLOSE = {"rtol": 0, "atol": 1e-5}


def block_matrix(first, second):
    """Distances of two groups that share no neighbour."""
    first, second = np.array(first), np.array(second)
    result = np.ones((len(first) + len(second),) * 2)
    result[: len(first), : len(first)] = first
    result[len(first) :, len(first) :] = second
    return result


def counted(labels):
    """Clusters and outliers."""
    return labels.max() + 1, (labels < 0).sum()


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def ten(request, ten_rows):
    return ten_rows.to(request.param)


def test_worked_example_without_expansion(ten, dense):
    distances = k_reciprocal_jaccard(ten, k1=4, k2=1)
    expected = block_matrix(
        [
            [0, 0.038534, 0.068977, 0.047896],
            [0.038534, 0, 0.081255, 0.021464],
            [0.068977, 0.081255, 0, 0.094493],
            [0.047896, 0.021464, 0.094493, 0],
        ],
        [
            [0, 1, 0.471067, 1, 0.868464, 1],
            [1, 0, 0.869527, 0.129219, 0.467727, 0.375079],
            [0.471067, 0.869527, 0, 0.862579, 0.643337, 1],
            [1, 0.129219, 0.862579, 0, 0.442559, 0.389223],
            [0.868464, 0.467727, 0.643337, 0.442559, 0, 0.689207],
            [1, 0.375079, 1, 0.389223, 0.689207, 0],
        ],
    )
    np.testing.assert_allclose(dense(distances), expected, **CLOSE)
    assert dbscan(distances, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 0, 1, 2, 1, 2, 2, 2]
    assert dbscan(distances, eps=0.6, min_samples=3).tolist() == [0, 0, 0, 0, -1, 1, -1, 1, 1, 1]
    assert dbscan(distances, eps=0.3, min_samples=2).tolist() == [0, 0, 0, 0, -1, 1, -1, 1, -1, -1]


def test_worked_example_with_expansion(ten, dense):
    distances = k_reciprocal_jaccard(ten, k1=4, k2=2)
    row_5 = [0.938759, 0, 0.786027, 0.423087, 0.423087, 0]
    row_7 = [0.843732, 0.423087, 0.549865, 0, 0, 0.423087]
    expected = block_matrix(
        [
            [0, 0.019454, 0.04839, 0.019454],
            [0.019454, 0, 0.064719, 0],
            [0.04839, 0.064719, 0, 0.064719],
            [0.019454, 0, 0.064719, 0],
        ],
        [
            [0, 0.938759, 0.554657, 0.843732, 0.843732, 0.938759],
            row_5,
            [0.554657, 0.786027, 0, 0.549865, 0.549865, 0.786027],
            row_7,
            row_7,
            row_5,
        ],
    )
    np.testing.assert_allclose(dense(distances), expected, **CLOSE)
    assert dbscan(distances, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert dbscan(distances, eps=0.3, min_samples=2).tolist() == [0, 0, 0, 0, -1, 1, -1, 2, 2, 1]


def test_the_length_of_a_feature_matters(ten, dense):
    """A mean of two unit features is shorter than 1 and must not be normalised on the way."""
    scaled = ten * (0.80 + 0.02 * torch.arange(10, dtype=ten.dtype))[:, None]
    ranking = nearest_neighbours(scaled, 4).tolist()
    assert (ranking[0], ranking[6], ranking[7]) == ([0, 1, 3, 2], [6, 4, 8, 7], [7, 8, 5, 9])
    distances = k_reciprocal_jaccard(scaled, k1=4, k2=2)
    filled = dense(distances)
    np.testing.assert_allclose(filled[0], [0, 0.018104, 0.029671, 0.018104, *[1] * 6], **CLOSE)
    np.testing.assert_allclose(filled[4], [*[1] * 4, 0, 0.936063, 0, 0.836656, 0.836656, 0.936063], **CLOSE)
    assert dbscan(distances, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 0, 1, 2, 1, 2, 2, 2]


def test_worked_example_with_modality_balanced_expansion(ten, dense):
    balanced = modality_balanced(torch.arange(10) % 2)
    filled = dense(k_reciprocal_jaccard(ten, k1=4, k2=3, expansion=balanced))
    np.testing.assert_allclose(filled[0], [0, 0, 0.021479, 0, *[1] * 6], **CLOSE)
    np.testing.assert_allclose(filled[4, 4:], [0, 0.628188, 0.369366, 0.46946, 0.327131, 0.628188], **CLOSE)
    np.testing.assert_allclose(filled[5, 4:], [0.628188, 0, 0.812664, 0.284466, 0.512766, 0], **CLOSE)
    filled = dense(k_reciprocal_jaccard(ten, k1=4, k2=3))
    np.testing.assert_allclose(filled[0], [0, 0, 0.032522, 0, *[1] * 6], **CLOSE)
    np.testing.assert_allclose(filled[4, 4:], [0, 0.739062, 0.184706, 0.655733, 0.410535, 0.739062], **CLOSE)
    np.testing.assert_allclose(filled[5, 4:], [0.739062, 0, 0.812664, 0.184706, 0.603016, 0], **CLOSE)


@pytest.mark.parametrize(
    ("k1", "k2", "total", "entries", "below_one", "found"),
    [
        (10, 3, 13304.71, (0.018128, 0.5, 1, 0.141522, 0.072025), 1656, [(10, 0), (11, 1), (14, 10)]),
        (20, 6, 12808.41, (0.033927, 0.022656, 0.966853, 0.200505, 0.028951), 13326, [(9, 0), (9, 0), (11, 0)]),
        (30, 6, 12193.40, (0.085166, 0.026774, 0.916154, 0.182266, 0.040554), 14400, [(9, 0), (9, 0), (11, 0)]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_worked_example_of_120_rows(many_rows, dense, dtype, k1, k2, total, entries, below_one, found):
    distances = k_reciprocal_jaccard(many_rows.to(dtype), k1=k1, k2=k2)
    filled = dense(distances)
    assert filled.sum() == pytest.approx(total, abs=0.05)
    pairs = [(0, 1), (0, 5), (3, 50), (60, 61), (118, 119)]
    np.testing.assert_allclose([filled[pair] for pair in pairs], entries, **CLOSE)
    assert distances.nnz == below_one
    # Row 5 is at exactly 1/2 from its neighbours when k1 = 10: at eps 0.5 rounding would decide, so stay just below.
    assert [counted(dbscan(distances, eps=eps)) for eps in (0.6, 0.5 - 1e-5, 0.3)] == found


def test_a_distance_of_exactly_one_half_is_decided_by_the_side_of_eps(many_rows):
    distances = k_reciprocal_jaccard(many_rows, k1=10, k2=3)
    assert distances[5, 0] == pytest.approx(0.5, abs=1e-12)
    assert counted(dbscan(distances, eps=0.5 - 1e-5)) == (11, 1)
    assert counted(dbscan(distances, eps=0.5 + 1e-5)) == (11, 0)


def test_toy_of_three_directions(angles, dense):
    distances = k_reciprocal_jaccard(angles(0, 4, 10, 90, 97, 180).float(), k1=3, k2=2)
    filled = dense(distances)
    expected = block_matrix(
        [[0, 0, 0.0107], [0, 0, 0.0107], [0.0107, 0.0107, 0]],
        [[0, 0, 0.5978], [0, 0, 0.5978], [0.5978, 0.5978, 0]],
    )
    np.testing.assert_allclose(filled, expected, rtol=0, atol=1e-4)
    assert dbscan(distances, eps=0.6, min_samples=2).tolist() == [0, 0, 0, 1, 1, 1]


def test_toy_of_three_directions_with_balanced_modalities(angles, dense):
    balanced = modality_balanced(torch.arange(6) % 2)
    filled = dense(k_reciprocal_jaccard(angles(0, 4, 10, 90, 97, 180).float(), k1=4, k2=3, expansion=balanced))
    found = [filled[pair] for pair in [(0, 1), (0, 3), (0, 4), (3, 4), (4, 5)]]
    np.testing.assert_allclose(found, [0, 0.7885, 0.9599, 0.4378, 0], rtol=0, atol=1e-4)


def test_encoding_bridges_two_modalities_through_one_row(angles):
    degrees = [0.6, 0.7, 2.5, 3.9, 5.1, 5.4, 47.4, 48.4, 48.5, 49.8, 51.0, 52.3, 150, 151.7, 153.1, 154.6]
    features = angles(*degrees)
    encoding = k_reciprocal_encoding(features, nearest_neighbours(features, 7).numpy())
    assert np.diff(encoding.indptr).tolist() == [6, 6, 6, 6, 6, 7, 7, 6, 6, 6, 6, 6, 4, 4, 4, 4]
    row = [0.150883, 0.150927, 0.151557, 0.151841, 0.151941, 0.151945, 0.090905]
    np.testing.assert_allclose(encoding[5].toarray()[0, :7], row, rtol=0, atol=1e-6)
    distances = k_reciprocal_jaccard(features, k1=7, k2=7)
    assert distances[0, 6] == pytest.approx(0.833333, abs=1e-6)
    assert distances[0, 12] == pytest.approx(0.923073, abs=1e-6)
    assert np.bincount(dbscan(distances, eps=0.5)).tolist() == [6, 6, 4]


def test_distance_of_given_encodings(dense):
    rows = csr_matrix([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1]])
    expected = [[0, 2 / 3, 1], [2 / 3, 0, 1], [1, 1, 0]]
    np.testing.assert_allclose(dense(jaccard_distance(rows)), expected, atol=1e-12)


def features_with_ties():
    shape = st.tuples(st.integers(1, 14), st.integers(1, 3))
    return arrays.arrays("float32", shape, elements=st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))


@settings(deadline=None, max_examples=80)
@given(features=features_with_ties(), k1=st.integers(1, 18), k2=st.integers(1, 8), balanced=st.booleans())
def test_sparse_distances_equal_a_loop_over_the_definition(features, k1, k2, balanced):
    modality = np.arange(len(features)) % 2
    expansion = modality_balanced(torch.from_numpy(modality)) if balanced else plain
    distances = k_reciprocal_jaccard(torch.from_numpy(features), k1=k1, k2=k2, expansion=expansion)
    expected = oracle.jaccard(features, k1, k2, modality.tolist() if balanced else None)
    filled = np.ones(distances.shape)
    coordinates = distances.tocoo()
    filled[coordinates.row, coordinates.col] = coordinates.data
    np.testing.assert_allclose(filled, expected, **CLOSE)


@pytest.mark.parametrize("step", [1, 7, 120])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_ranges_of_rows_nor_threads_change_a_bit(many_rows, monkeypatch, step, threads):
    reference = k_reciprocal_jaccard(many_rows, k1=10, k2=3)
    monkeypatch.setattr("harness.clustering.jaccard_compiled.over_rows", functools.partial(over_rows, step=step))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = k_reciprocal_jaccard(many_rows, k1=10, k2=3)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found.indptr, reference.indptr)
    np.testing.assert_array_equal(found.indices, reference.indices)
    np.testing.assert_array_equal(found.data, reference.data)


def test_the_result_is_symmetric_below_one_and_keeps_its_zeros(many_rows):
    distances = k_reciprocal_jaccard(many_rows.float(), k1=10, k2=3)
    assert distances.dtype == np.float32
    assert distances.has_canonical_format
    assert (distances != distances.T).nnz == 0
    assert distances.data.min() == 0
    assert distances.data.max() < 1
    assert all(i in distances.indices[distances.indptr[i] : distances.indptr[i + 1]] for i in range(120))


def test_two_equal_encodings_off_the_diagonal_are_a_stored_zero(ten):
    distances = k_reciprocal_jaccard(ten, k1=4, k2=2)
    stored = distances.indices[distances.indptr[5] : distances.indptr[6]].tolist()
    assert 9 in stored
    assert distances[5, 9] == pytest.approx(0, abs=1e-6)


def test_a_greatest_distance_leaves_out_what_lies_beyond(many_rows, dense):
    whole = dense(k_reciprocal_jaccard(many_rows, k1=10, k2=3))
    distances = k_reciprocal_jaccard(many_rows, k1=10, k2=3, max_distance=0.3)
    assert distances.nnz == (whole <= 0.3).sum()
    np.testing.assert_array_equal(dense(distances)[whole <= 0.3], whole[whole <= 0.3])


def test_reordering_the_images_reorders_the_distances(many_rows, dense):
    order = np.random.default_rng(0).permutation(120)
    whole = dense(k_reciprocal_jaccard(many_rows, k1=20, k2=6))
    reordered = dense(k_reciprocal_jaccard(many_rows[order], k1=20, k2=6))
    np.testing.assert_allclose(reordered, whole[np.ix_(order, order)], atol=1e-12)


def test_one_modality_alone_makes_balanced_expansion_the_plain_one(many_rows):
    balanced = modality_balanced(torch.ones(120, dtype=torch.int64))
    found = k_reciprocal_jaccard(many_rows, k1=20, k2=6, expansion=balanced)
    reference = k_reciprocal_jaccard(many_rows, k1=20, k2=6)
    np.testing.assert_allclose(found.toarray(), reference.toarray(), atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(rows):
    distances = k_reciprocal_jaccard(torch.zeros(rows, 3))
    assert distances.shape == (rows, rows)
    np.testing.assert_array_equal(distances.toarray(), np.zeros((rows, rows)))
    assert distances.nnz == rows * rows


def test_long_features_do_not_overflow():
    features = 1000 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert np.isfinite(k_reciprocal_jaccard(features, k1=5, k2=2).data).all()


def test_half_precision_is_computed_in_float32(ten_rows):
    half = ten_rows.half()
    found, reference = k_reciprocal_jaccard(half, k1=4), k_reciprocal_jaccard(half.float(), k1=4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), reference.toarray())


def test_what_cannot_be_used_is_an_error(ten_rows):
    with pytest.raises(SettingsError, match="k1 = 0"):
        k_reciprocal_jaccard(ten_rows, k1=0)
    with pytest.raises(SettingsError, match="k2 = 0"):
        k_reciprocal_jaccard(ten_rows, k2=0)
    with pytest.raises(HarnessError, match="3 rows was given for the expansion of 10"):
        k_reciprocal_jaccard(ten_rows, expansion=modality_balanced(torch.zeros(3)))
    ten_rows[7, 2] = torch.nan
    with pytest.raises(TrainingError, match="row 7"):
        k_reciprocal_jaccard(ten_rows)


def test_an_expansion_that_does_not_average_is_an_error(ten_rows):
    def doubled(ranking, k2, /):
        return 2 * plain(ranking, k2)

    def short(ranking, k2, /):
        return plain(ranking, k2)[:5]

    def negative(ranking, k2, /):
        return averaging_matrix(ranking[:, :2], np.tile([1.5, -0.5], (10, 1)))

    with pytest.raises(ContractError, match="row 0 sums to 2"):
        k_reciprocal_jaccard(ten_rows, k1=4, expansion=doubled)
    with pytest.raises(ContractError, match=r"\(10, 10\) was expected"):
        k_reciprocal_jaccard(ten_rows, k1=4, expansion=short)
    with pytest.raises(ContractError, match="non-negative"):
        k_reciprocal_jaccard(ten_rows, k1=4, expansion=negative)


@pytest.mark.slow
def test_memory_stays_far_below_a_dense_matrix():
    """20,000 rows: one dense float32 matrix alone would take 1.6 GB."""
    script = """
        import resource, torch
        from harness.clustering.dbscan import dbscan
        from harness.clustering.jaccard import k_reciprocal_jaccard
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(1000, 16, generator=generator)
        def labels(rows):
            noise = torch.randn(rows, 16, generator=generator)
            features = torch.nn.functional.normalize(centres[torch.arange(rows) % 1000] + 0.2 * noise, dim=1)
            return dbscan(k_reciprocal_jaccard(features, max_distance=0.6), eps=0.6)
        labels(1000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = labels(20000)
        print(found.max() + 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    clusters, kibibytes = map(int, run.stdout.split())
    assert 900 <= clusters <= 1100
    assert kibibytes < 800_000
